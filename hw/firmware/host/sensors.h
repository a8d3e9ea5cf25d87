/* The simulated sensors: recordings, or a seeded model of motion. */
#ifndef HOST_SENSORS_H
#define HOST_SENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "../core/device.h"

typedef struct {
    ec_stream stream;
    ec_channel channels[EC_MAX_CHANNELS];
    uint32_t row_bytes;
    const char *path; /* recording; NULL for the model */
    uint8_t *rows;    /* recording in wire format */
    uint64_t n_rows;
    uint64_t seed;          /* of the model */
    int64_t silent_until_ns;
    int64_t own_ppb;    /* of a sensor with a clock of its own (stream.given): how much slower than the counter */
    uint64_t own_tick;  /* of its next row */
    uint64_t read_us;   /* when its rows are next read */
    uint32_t lose;      /* rows that shall be lost */
    int32_t zero[EC_MAX_CHANNELS]; /* tare of integer streams, raw counts */
    float zero_f[EC_MAX_CHANNELS];
    uint8_t last[EC_PAYLOAD_MAX]; /* latest row, before tare */
} sensor;

/* Row `index` since START; false once a recording that is not looped has ended. */
bool sensor_row(sensor *self, uint64_t index, bool loop, uint8_t *row);

/* Make the latest row the zero of all that follow; false for kinds that are not tared. */
bool sensor_tare(sensor *self);

#endif
