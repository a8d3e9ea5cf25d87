/* The command line of edgecap-fw-host. */
#ifndef HOST_OPTIONS_H
#define HOST_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "sensors.h"

typedef struct {
    const char *link;
    const char *serial_number;
    const char *truth;
    int64_t skew_ppb;
    uint64_t start_us;
    int64_t usb_frame_ns;
    uint64_t seed;
    bool loop;
    uint8_t n_sensors;
    sensor sensors[EC_MAX_STREAMS];
} options;

/* Ends the process with a message and exit code 2 if the command line or a recording is wrong. */
void options_parse(options *opts, int argc, char **argv);

void options_free(options *opts);

#endif
