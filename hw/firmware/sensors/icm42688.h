/* ICM-42688-P over SPI: accelerometer and gyroscope at 1 kHz through its FIFO. Registers and bits as in TDK's
 * datasheet DS-000347 (register map of user bank 0). */
#ifndef EC_ICM42688_H
#define EC_ICM42688_H

#include "imu.h"

/* Full scale at the ranges set here: ±16 g and ±2000 °/s in 16 bits. */
#define EC_ICM42688_ACCEL_FULL_M_S2 156.9064f
#define EC_ICM42688_GYRO_FULL_RAD_S 34.906585f
/* Group delay at low frequency of a second-order low-pass at 250 Hz, the filter set here: sqrt(2) / (2 pi 250 Hz).
 * Computed; the anti-alias filter before it is not part of it. */
#define EC_ICM42688_LAG_US 900

extern const ec_imu_chip EC_ICM42688;

#endif
