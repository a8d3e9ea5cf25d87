#include "lsm6dsv16x.h"

#include <string.h>

enum {
    IF_CFG = 0x03,
    FIFO_CTRL3 = 0x09,
    FIFO_CTRL4 = 0x0A,
    INT1_CTRL = 0x0D,
    WHO_AM_I = 0x0F,
    CTRL1 = 0x10,
    CTRL2 = 0x11,
    CTRL3 = 0x12,
    CTRL4 = 0x13,
    CTRL6 = 0x15,
    CTRL8 = 0x17,
    FIFO_STATUS1 = 0x1B,
    FUNCTIONS_ENABLE = 0x50,
    HAODR_CFG = 0x62,
    FIFO_DATA_OUT_TAG = 0x78
};

/* The FIFO holds words: a tag and six bytes. Each sample is three of them, which share the count in their tags. */
#define WORD_BYTES 7u
#define WORDS 3u
#define TAG_GYRO 0x01u
#define TAG_ACCEL 0x02u
#define TAG_TIME 0x04u

static const uint8_t RESET[][2] = {{CTRL3, 0x01}};
/* Bypass, then continuous again, each time with a time stamp for every sample. */
static const uint8_t FLUSH[][2] = {{FIFO_CTRL4, 0x40}, {FIFO_CTRL4, 0x46}};
static const uint8_t SETUP[][2] = {
    {IF_CFG, 0x01},           /* SPI only; interrupts push-pull, active high */
    {CTRL3, 0x44},            /* both bytes of a value belong together; addresses count up */
    {CTRL4, 0x02},            /* interrupts of new samples are pulses */
    {CTRL6, 0x04},            /* ±2000 °/s */
    {CTRL8, 0x03},            /* ±16 g */
    {HAODR_CFG, 0x01},        /* rates are 15.625 Hz and its doubles; to be chosen while both sensors are off */
    {FUNCTIONS_ENABLE, 0x40}, /* time stamps, of 21.75 us */
    {FIFO_CTRL3, 0x99},       /* both sensors into the FIFO, at their rate */
    {FIFO_CTRL4, 0x46},
    {INT1_CTRL, 0x02},        /* a new sample of the gyroscope raises interrupt 1 */
    {CTRL1, 0x19},            /* accelerometer: high-accuracy mode, 1 kHz */
    {CTRL2, 0x19},            /* gyroscope: the same */
};

/* A sample that is just being written is left for the next time. */
static uint32_t packets(const uint8_t count[2])
{
    return ((uint32_t)(count[1] & 0x01u) << 8 | count[0]) / WORDS;
}

static bool unpack(const uint8_t *packet, uint8_t *row, uint32_t *stamp)
{
    uint32_t seen = 0;
    for (size_t i = 0; i < WORDS; i++) {
        const uint8_t *word = packet + i * WORD_BYTES;
        const uint8_t tag = word[0] >> 3;
        if (((word[0] ^ packet[0]) & 0x06u) != 0) /* of another sample */
            return false;
        if (tag == TAG_ACCEL)
            memcpy(row, word + 1, EC_IMU_ROW_BYTES / 2);
        else if (tag == TAG_GYRO)
            memcpy(row + EC_IMU_ROW_BYTES / 2, word + 1, EC_IMU_ROW_BYTES / 2);
        else if (tag == TAG_TIME)
            *stamp = (uint32_t)word[1] | (uint32_t)word[2] << 8 | (uint32_t)word[3] << 16 | (uint32_t)word[4] << 24;
        else
            return false;
        seen |= tag;
    }
    return seen == (TAG_GYRO | TAG_ACCEL | TAG_TIME);
}

const ec_imu_chip EC_LSM6DSV16X = {
    .who_register = WHO_AM_I,
    .who = 0x70,
    .another = "another sensor: WHO_AM_I is not that of an LSM6DSV16X",
    .reset = EC_IMU_WRITES(RESET),
    .reset_us = 50000, /* what Linux' driver gives it, too */
    .setup = EC_IMU_WRITES(SETUP),
    .start_us = 100000,
    .flush = EC_IMU_WRITES(FLUSH),
    .count_register = FIFO_STATUS1,
    .packets = packets,
    .fifo_register = FIFO_DATA_OUT_TAG, /* a longer read goes on with the next word */
    .packet_bytes = WORDS * WORD_BYTES,
    .unpack = unpack,
    .stamp_mask = 0xFFFFFFFF,
    .stamp_step = 46, /* of 21.75 us */
    .accel_full_m_s2 = EC_LSM6DSV16X_ACCEL_FULL_M_S2,
    .gyro_full_rad_s = EC_LSM6DSV16X_GYRO_FULL_RAD_S,
    .lag_us = 0,
};
