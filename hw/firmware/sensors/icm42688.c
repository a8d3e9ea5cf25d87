#include "icm42688.h"

enum {
    DEVICE_CONFIG = 0x11,
    INT_CONFIG = 0x14,
    FIFO_CONFIG = 0x16,
    FIFO_COUNTH = 0x2E,
    FIFO_DATA = 0x30,
    SIGNAL_PATH_RESET = 0x4B,
    INTF_CONFIG0 = 0x4C,
    PWR_MGMT0 = 0x4E,
    GYRO_CONFIG0 = 0x4F,
    ACCEL_CONFIG0 = 0x50,
    GYRO_ACCEL_CONFIG0 = 0x52,
    TMST_CONFIG = 0x54,
    FIFO_CONFIG1 = 0x5F,
    INT_CONFIG1 = 0x64,
    INT_SOURCE0 = 0x65,
    WHO_AM_I = 0x75,
    REG_BANK_SEL = 0x76
};

#define PACKET_BYTES 16u
/* Header of a packet with acceleration, rotation rate and a time stamp of the sample. */
#define HEADER_MASK 0xFCu
#define HEADER 0x68u

static const uint8_t RESET[][2] = {{REG_BANK_SEL, 0}, {DEVICE_CONFIG, 0x01}};
static const uint8_t FLUSH[][2] = {{SIGNAL_PATH_RESET, 0x02}};
static const uint8_t SETUP[][2] = {
    {INT_CONFIG, 0x03},         /* interrupt 1: pulsed, push-pull, active high */
    {INTF_CONFIG0, 0x70},       /* FIFO count in packets, everything big-endian */
    {GYRO_CONFIG0, 0x06},       /* ±2000 °/s, 1 kHz */
    {ACCEL_CONFIG0, 0x06},      /* ±16 g, 1 kHz */
    {GYRO_ACCEL_CONFIG0, 0x11}, /* low-pass at a quarter of the rate */
    {TMST_CONFIG, 0x21},        /* time stamps of 1 us */
    {FIFO_CONFIG1, 0x07},       /* acceleration, rotation rate, temperature */
    {FIFO_CONFIG, 0x40},        /* stream */
    {INT_CONFIG1, 0x00},        /* as the datasheet demands for interrupt 1 */
    {INT_SOURCE0, 0x08},        /* a new sample raises interrupt 1 */
    {PWR_MGMT0, 0x0F},          /* both sensors on, low noise */
};

static uint32_t packets(const uint8_t count[2])
{
    return (uint32_t)(count[0] << 8 | count[1]);
}

static bool unpack(const uint8_t *packet, uint8_t *row, uint32_t *stamp)
{
    if ((packet[0] & HEADER_MASK) != HEADER)
        return false;
    for (size_t i = 0; i < EC_IMU_ROW_BYTES; i += 2) { /* big-endian there */
        row[i] = packet[1 + i + 1];
        row[i + 1] = packet[1 + i];
    }
    *stamp = (uint32_t)(packet[14] << 8 | packet[15]);
    return true;
}

const ec_imu_chip EC_ICM42688 = {
    .who_register = WHO_AM_I,
    .who = 0x47,
    .another = "another sensor: WHO_AM_I is not that of an ICM-42688-P",
    .reset = EC_IMU_WRITES(RESET),
    .reset_us = 2000, /* the datasheet asks for 1 ms */
    .setup = EC_IMU_WRITES(SETUP),
    .start_us = 50000, /* gyroscope start-up: 45 ms */
    .flush = EC_IMU_WRITES(FLUSH),
    .count_register = FIFO_COUNTH,
    .packets = packets,
    .fifo_register = FIFO_DATA,
    .packet_bytes = PACKET_BYTES,
    .unpack = unpack,
    .stamp_mask = 0xFFFF,
    .stamp_step = 1000, /* of 1 us */
    .accel_full_m_s2 = EC_ICM42688_ACCEL_FULL_M_S2,
    .gyro_full_rad_s = EC_ICM42688_GYRO_FULL_RAD_S,
    .lag_us = EC_ICM42688_LAG_US,
};
