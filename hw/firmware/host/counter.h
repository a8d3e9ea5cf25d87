/* The device counter: CLOCK_MONOTONIC_RAW, made to run fast or slow. */
#ifndef HOST_COUNTER_H
#define HOST_COUNTER_H

#include <stdint.h>

typedef struct {
    int64_t origin_ns; /* RAW at power-up */
    uint64_t start_us; /* counter at power-up */
    int64_t skew_ppb;  /* how much faster than RAW it runs */
} counter;

int64_t raw_now_ns(void);

/* The counter at a RAW time, extended to 64 bits. */
uint64_t counter_at(const counter *device, int64_t raw_ns);

/* The RAW time at which the counter reaches t_us. */
int64_t counter_raw_ns(const counter *device, uint64_t t_us);

#endif
