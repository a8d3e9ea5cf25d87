/* The truth file: when each sample was really taken, and when the light really changed. */
#ifndef HOST_TRUTH_H
#define HOST_TRUTH_H

#include <stdint.h>
#include <stdio.h>

/* In place of a stream: the light has changed, `index` is its colour, 0xRRGGBB. */
#define TRUTH_LIGHT 0xFFu

/* One record, little-endian, 24 bytes. */
typedef struct {
    uint8_t stream;
    uint16_t boot_no; /* power-ups and resets before this one */
    uint32_t index;
    int64_t raw_ns; /* CLOCK_MONOTONIC_RAW at which the counter reached t_us */
    uint32_t t_us;
    uint32_t run; /* STARTs since this power-up */
} truth_record;

void truth_write(FILE *file, const truth_record *record);

#endif
