#define _GNU_SOURCE
#include "counter.h"

#include <time.h>

#define NS_PER_S 1000000000

int64_t raw_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_RAW, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* Exact in integers: whole seconds and the rest apart, so that nothing overflows within centuries. */
static int64_t device_ns(const counter *device, int64_t elapsed_ns)
{
    const int64_t s = elapsed_ns / NS_PER_S;
    const int64_t rest_ns = elapsed_ns % NS_PER_S;
    return elapsed_ns + s * device->skew_ppb + rest_ns * device->skew_ppb / NS_PER_S;
}

uint64_t counter_at(const counter *device, int64_t raw_ns)
{
    return device->start_us + (uint64_t)device_ns(device, raw_ns - device->origin_ns) / 1000u;
}

int64_t counter_raw_ns(const counter *device, uint64_t t_us)
{
    const int64_t wanted_ns = (int64_t)(t_us - device->start_us) * 1000;
    int64_t elapsed_ns = wanted_ns;
    /* Fixed point: each round shrinks the error by the skew, so five suffice for any below 1 %. */
    for (int round = 0; round < 5; round++)
        elapsed_ns = wanted_ns - (device_ns(device, elapsed_ns) - elapsed_ns);
    while (device_ns(device, elapsed_ns) < wanted_ns)
        elapsed_ns++;
    while (elapsed_ns > 0 && device_ns(device, elapsed_ns - 1) >= wanted_ns)
        elapsed_ns--;
    return device->origin_ns + elapsed_ns;
}
