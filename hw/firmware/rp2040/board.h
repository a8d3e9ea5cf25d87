/* What is connected: one table entry per board variant, chosen at build time by BOARD. Pins are the same on all
 * (pins.h). */
#ifndef RP2040_BOARD_H
#define RP2040_BOARD_H

#include "../core/device.h"
#include "analog.h"

typedef struct {
    const char *name;
    const ec_stream *streams;
    uint8_t n_streams;
    /* Stream numbers; EC_NO_STREAM if the board has none of the kind. */
    uint8_t force;
    uint8_t imu;
    uint8_t magnetic;
    analog_layout analog;
    const uint8_t *magnetic_addresses; /* 7 bits */
    uint8_t n_magnetic;
} board;

extern const board BOARD_HERE;

/* Behind the mark `serial=`: what uf2.py wrote; empty for the flash chip's own number. */
extern const char IDENTITY[64];

#endif
