/* Clocks from the 12 MHz crystal: 125 MHz for core and peripherals, 48 MHz for ADC and USB, 1 MHz for the timer. */
#ifndef RP2040_CLOCKS_H
#define RP2040_CLOCKS_H

#include <stdint.h>

#define SYSTEM_HZ 125000000u

void clocks_start(void);

/* Let peripherals out of reset, by the bits of RESETS. */
void unreset(uint32_t bits);

#endif
