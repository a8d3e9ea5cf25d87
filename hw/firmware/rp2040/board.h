/* What is connected: one table entry per board variant, chosen at build time by BOARD. Pins are the same on all
 * (pins.h). Magnetometers come last and may be left out of a particular board (MAGNETS). */
#ifndef RP2040_BOARD_H
#define RP2040_BOARD_H

#include "../core/device.h"
#include "analog.h"

typedef struct {
    uint8_t address; /* 7 bits */
    const char *finger;
} magnetic_place;

typedef struct {
    const char *name;
    const ec_stream *streams;
    uint8_t n_streams;
    /* Stream numbers; EC_NO_STREAM if the board has none of the kind. */
    uint8_t force;
    uint8_t imu;
    analog_layout analog;
    /* The last streams, one for each. */
    const magnetic_place *magnetic;
    uint8_t n_magnetic;
} board;

extern const board BOARD_HERE;

/* Behind the mark `serial=`: what uf2.py wrote; empty for the flash chip's own number. */
extern const char IDENTITY[64];

/* Behind the mark `magnets=`: the fingers, separated by commas, whose magnetometers are fitted. */
extern const char MAGNETS[64];

#endif
