/* Inertial sensors over SPI with a FIFO: acceleration and rotation rate at 1 kHz. What all of them have in common; a
 * chip is a table (icm42688.h, lsm6dsv16x.h).
 *
 * The sensor runs on its own oscillator. Its interrupt at each new sample is stamped by the board's counter
 * (ec_imu_edge); packets leave the FIFO in the same order, so packet k belongs to edge k. The sensor's own time
 * stamp in each packet shows whether one is missing; then both are emptied together and it starts anew. */
#ifndef EC_IMU_H
#define EC_IMU_H

#include <stdbool.h>
#include <stdint.h>

#include "bus.h"

#define EC_IMU_CHANNELS 6u
#define EC_IMU_ROW_BYTES 12u
#define EC_IMU_RATE_MHZ 1000000u
#define EC_IMU_EDGES 64u
#define EC_IMU_PACKET_MAX 21u

/* Writes that follow one another: register, value. */
typedef struct {
    const uint8_t (*writes)[2];
    uint8_t n;
} ec_imu_writes;

#define EC_IMU_WRITES(table) {(table), sizeof(table) / sizeof *(table)}

/* A kind of sensor. Registers are read with bit 7 set. */
typedef struct {
    uint8_t who_register;
    uint8_t who;
    const char *another;  /* what to say of a chip that answers otherwise */
    ec_imu_writes reset;  /* everything to its power-up state */
    uint32_t reset_us;    /* takes so long */
    ec_imu_writes setup;  /* each is read back; afterwards the sensors run */
    uint32_t start_us;    /* until their samples are good */
    ec_imu_writes flush;  /* empties the FIFO */
    uint8_t count_register;
    uint32_t (*packets)(const uint8_t count[2]); /* whole ones that wait, from the two bytes there */
    uint8_t fifo_register;
    uint8_t packet_bytes; /* of one sample, at most EC_IMU_PACKET_MAX */
    /* The row of a packet (six int16, little-endian: acceleration, rotation rate) and its time stamp; false if it is
     * none. */
    bool (*unpack)(const uint8_t *packet, uint8_t *row, uint32_t *stamp);
    uint32_t stamp_mask;  /* the stamp's bits */
    uint32_t stamp_step;  /* from one sample to the next; half of it more or less is let pass */
    float accel_full_m_s2; /* of 32768 counts */
    float gyro_full_rad_s;
    int32_t lag_us;       /* group delay of what the setup chooses; 0 where it is not known */
} ec_imu_chip;

typedef enum {
    EC_IMU_RESET = 0, /* to be reset */
    EC_IMU_AWAKENING, /* waits for the reset to end */
    EC_IMU_STARTING,  /* waits for good samples */
    EC_IMU_ALIGNING,  /* waits for an edge, to empty the FIFO right after it */
    EC_IMU_RUNNING,
    EC_IMU_FAULT      /* tried again after a while */
} ec_imu_state;

typedef struct {
    const ec_imu_chip *chip;
    const ec_spi *spi;
    ec_imu_state state;
    const char *fault;  /* why, in EC_IMU_FAULT; NULL otherwise */
    uint64_t due_us;    /* when ec_imu_step() has something to do */
    uint64_t patience_us;
    uint8_t who_am_i;   /* as it answered last */
    uint32_t edges[EC_IMU_EDGES];
    volatile uint32_t edges_put; /* by the interrupt */
    uint32_t edges_taken;
    bool has_stamp;
    uint32_t stamp;     /* of the packet before */
    uint64_t last_us;   /* of the row before */
    uint8_t unequal;    /* reads since it was aligned in which packets and edges did not agree */
    bool realigning;    /* samples since last_us are lost */
    uint32_t realigned; /* times that packets and edges did not agree */
} ec_imu;

/* What becomes of a row, or of n rows that were lost from t_us on. */
typedef struct {
    void *ctx;
    void (*row)(void *ctx, uint64_t t_us, const uint8_t *row);
    void (*lost)(void *ctx, uint64_t t_us, uint32_t n);
} ec_imu_sink;

/* The first of n chips that answers as itself; chips[0] if none does. */
const ec_imu_chip *ec_imu_find(const ec_spi *spi, const ec_imu_chip *const *chips, uint8_t n);

void ec_imu_init(ec_imu *imu, const ec_imu_chip *chip, const ec_spi *spi);

/* From the interrupt: a new sample, at this counter. */
void ec_imu_edge(ec_imu *imu, uint32_t t_us);

/* Do what is due: set the sensor up, or hand its rows to the sink. Never waits. */
void ec_imu_step(ec_imu *imu, uint64_t now_us, const ec_imu_sink *sink);

#endif
