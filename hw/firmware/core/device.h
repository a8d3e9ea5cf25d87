/* One device: its streams, its life cycle and its conversation with the host (hw/PROTOCOL.md).
 *
 * A board calls ec_init() at power-up, ec_receive() for every byte from the line, ec_transmitted() when the
 * transmitter has finished, ec_button_raw() for every edge of the button, and ec_poll() in its main loop.
 * All but ec_transmitted() belong to one context; ec_transmitted() may be called from an interrupt. */
#ifndef EC_DEVICE_H
#define EC_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "button.h"
#include "hal.h"
#include "light.h"
#include "protocol.h"
#include "queue.h"

#define EC_FIRMWARE "edgecap-fw 1.0.0"

typedef struct {
    const char *name;
    const char *unit;
    float scale;      /* value in unit = raw * scale */
    float full_scale; /* in unit; 0 unknown */
} ec_channel;

typedef struct {
    const char *name;
    const ec_channel *channels;
    uint32_t rate_mhz;
    int32_t lag_us;
    uint8_t kind;
    uint8_t dtype;
    uint8_t n_channels;
    bool given; /* the board gives the rows, with their times, by ec_give_row() */
} ec_stream;

/* Sampling state of one stream. */
typedef struct {
    uint32_t rate_mhz;
    uint64_t period_us; /* from one row to the next, rounded up */
    uint64_t quiet_limit_us; /* a sensor that gives nothing for so long is reported */
    uint32_t row_bytes;
    uint32_t batch_max;
    uint64_t ticks;      /* sampling instants since START */
    uint32_t produced;   /* rows since START: the index of the next one */
    uint32_t lost;       /* rows dropped for want of room, not yet reported */
    uint64_t lost_t_us;  /* counter at the first of them */
    uint64_t quiet_t_us; /* since when the sensor gave nothing */
    bool quiet;
    bool fault;          /* reported */
    const char *reason;  /* why, as far as the board knows */
    const char *told;    /* what was told of it */
    uint64_t row_us;     /* when the latest row was given, if rows are; also while idle */
    uint32_t n;          /* rows in the batch */
    uint64_t t_us[EC_BATCH_MAX];
    uint8_t rows[EC_PAYLOAD_MAX];
} ec_sampler;

typedef struct {
    ec_hal hal;
    const ec_stream *streams;
    uint8_t n_streams;
    const char *serial_number;
    uint32_t boot_id;
    uint64_t now_us; /* the counter, extended */

    bool sampling;
    uint64_t start_us;
    ec_sampler samplers[EC_MAX_STREAMS];

    ec_queue queue;
    uint32_t seq;
    bool has_prev;
    volatile bool sending;
    volatile uint32_t tx_done_us;
    uint8_t body[EC_BODY_MAX];
    uint8_t wire[EC_LINE_MAX];

    uint8_t rx[EC_WIRE_MAX];
    size_t rx_bytes;
    bool rx_too_long;

    uint64_t look_us;       /* while idle, when the sensors are next looked at */
    uint64_t tell_again_us; /* while idle, when faults that stand are next told */
    uint8_t hello_part;
    uint8_t hello_parts; /* HELLO frames still due while hello_part < hello_parts */
    ec_button button;
    uint64_t button_edge_us;  /* the newest edge told */
    uint64_t button_again_us; /* when it is told again … */
    uint8_t button_again;     /* … so often */
    ec_light light;
    ec_light lapsed;   /* shown in its place while the host is silent */
    bool alone;        /* the host is */
    uint64_t heard_us; /* when it last said something */
    bool reset_asked;
    uint64_t reset_by_us;
    uint32_t refused_frames; /* bad frames received, not yet reported */
    uint32_t lost_frames;    /* answers and events dropped for want of room, not yet reported */
    uint64_t log_after_us;
} ec_device;

/* Power up. Returns NULL, or what is wrong with the streams. */
const char *ec_init(ec_device *device, const ec_hal *hal, const ec_stream *streams, uint8_t n_streams,
                    const char *serial_number);

/* A byte from the line; t_us is the counter when it came. */
void ec_receive(ec_device *device, uint8_t byte, uint32_t t_us);

/* The transmitter has sent the last byte of what transmit() gave it; t_us is the counter then. */
void ec_transmitted(ec_device *device, uint32_t t_us);

/* An edge of the button's contact. */
void ec_button_raw(ec_device *device, bool down);

/* A row of a stream whose rows are given, as the wire wants it; t_us is the extended counter when it was taken,
 * later than that of the row before. While idle it only shows that the sensor is alive. */
void ec_give_row(ec_device *device, uint8_t stream, uint64_t t_us, const uint8_t *row);

/* n rows of such a stream were taken by the sensor but lost on the way here; the first at t_us. */
void ec_lose_rows(ec_device *device, uint8_t stream, uint64_t t_us, uint32_t n);

/* Why a sensor gives nothing, for the next sensor-fault; the text must stay. NULL forgets it. */
void ec_explain_fault(ec_device *device, uint8_t stream, const char *reason);

/* Whether rows of a stream whose rows are given have come lately, taken or not: for alive() of a board whose sensors
 * run on while idle. */
bool ec_rows_come(const ec_device *device, uint8_t stream);

/* A line for the host's log. */
void ec_send_log(ec_device *device, uint8_t level, const char *text);

/* Take due samples, settle the button, and give the transmitter its next frame. */
void ec_poll(ec_device *device);

/* The extended counter at which the next sensor row is due; UINT64_MAX while idle. */
uint64_t ec_next_row_us(const ec_device *device);

/* The extended counter at which ec_poll() will next have something to do besides collecting rows. A board
 * whose sensors keep their own rows (or whose rows are computed) may sleep until then. */
uint64_t ec_next_wake_us(const ec_device *device);

#endif
