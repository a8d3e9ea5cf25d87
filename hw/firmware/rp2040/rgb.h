/* The RGB light: full and dark are steady levels, anything between is pulse-width modulated. */
#ifndef RP2040_RGB_H
#define RP2040_RGB_H

#include <stdint.h>

void rgb_start(void);
void rgb_show(uint8_t red, uint8_t green, uint8_t blue);

#endif
