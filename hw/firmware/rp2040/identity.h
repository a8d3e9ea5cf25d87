/* Who this board is: its serial number, what is fitted, and a boot id that differs at every power-up. */
#ifndef RP2040_IDENTITY_H
#define RP2040_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

/* The serial number that uf2.py wrote into the image, or `rp2040-` and the flash chip's unique number in hex. */
const char *identity_serial(void);

/* Whether this finger's magnetometer is fitted, as uf2.py wrote; all are, if it wrote nothing. */
bool identity_has_magnet(const char *finger);

/* From the ring oscillator's random bit. */
uint32_t identity_boot_id(void);

#endif
