/* ICM-42688-P over SPI: accelerometer and gyroscope at 1 kHz through its FIFO. Registers and bits as in TDK's
 * datasheet DS-000347 (register map of user bank 0).
 *
 * The sensor runs on its own oscillator. Its interrupt at each new sample is stamped by the board's counter
 * (ec_icm42688_edge); packets leave the FIFO in the same order, so packet k belongs to edge k. The sensor's own
 * time stamp in each packet shows whether one is missing; then both are emptied together and it starts anew. */
#ifndef EC_ICM42688_H
#define EC_ICM42688_H

#include <stdbool.h>
#include <stdint.h>

#include "bus.h"

#define EC_ICM42688_CHANNELS 6u
#define EC_ICM42688_ROW_BYTES 12u
#define EC_ICM42688_RATE_MHZ 1000000u
/* Scale and full scale at the ranges set here: ±16 g and ±2000 °/s in 16 bits. */
#define EC_ICM42688_ACCEL_FULL_M_S2 156.9064f
#define EC_ICM42688_GYRO_FULL_RAD_S 34.906585f
/* Group delay at low frequency of a second-order low-pass at 250 Hz, the filter set here: sqrt(2) / (2 pi 250 Hz).
 * Computed; the anti-alias filter before it is not part of it. */
#define EC_ICM42688_LAG_US 900
#define EC_ICM42688_EDGES 64u

typedef enum {
    EC_ICM_RESET = 0, /* to be reset */
    EC_ICM_AWAKENING, /* waits for the reset to end */
    EC_ICM_STARTING,  /* waits for the gyroscope */
    EC_ICM_ALIGNING,  /* waits for an edge, to empty the FIFO right after it */
    EC_ICM_RUNNING,
    EC_ICM_FAULT      /* tried again after a while */
} ec_icm_state;

typedef struct {
    const ec_spi *spi;
    ec_icm_state state;
    const char *fault;  /* why, in EC_ICM_FAULT; NULL otherwise */
    uint64_t due_us;    /* when ec_icm42688_step() has something to do */
    uint64_t patience_us;
    uint8_t who_am_i;   /* as it answered last */
    uint32_t edges[EC_ICM42688_EDGES];
    volatile uint32_t edges_put; /* by the interrupt */
    uint32_t edges_taken;
    bool has_stamp;
    uint16_t stamp;     /* of the packet before */
    uint64_t last_us;   /* of the row before */
    uint8_t unequal;    /* reads since it was aligned in which packets and edges did not agree */
    bool realigning;    /* samples since last_us are lost */
    uint32_t realigned; /* times that packets and edges did not agree */
} ec_icm42688;

/* What becomes of a row, or of n rows that were lost from t_us on. */
typedef struct {
    void *ctx;
    void (*row)(void *ctx, uint64_t t_us, const uint8_t *row);
    void (*lost)(void *ctx, uint64_t t_us, uint32_t n);
} ec_icm_sink;

void ec_icm42688_init(ec_icm42688 *imu, const ec_spi *spi);

/* From the interrupt: a new sample, at this counter. */
void ec_icm42688_edge(ec_icm42688 *imu, uint32_t t_us);

/* Do what is due: set the sensor up, or hand its rows (six int16, little-endian: acceleration, rotation rate) to the
 * sink. Never waits. */
void ec_icm42688_step(ec_icm42688 *imu, uint64_t now_us, const ec_icm_sink *sink);

#endif
