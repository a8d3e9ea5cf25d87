/* LSM6DSV16X (and LSM6DSV, which answers and works alike here) over SPI: accelerometer and gyroscope at 1 kHz through
 * its FIFO, in its high-accuracy ODR mode. Registers and bits as in ST's datasheet DS13510. */
#ifndef EC_LSM6DSV16X_H
#define EC_LSM6DSV16X_H

#include "imu.h"

/* 32768 counts of 0.488 mg and of 70 m°/s, the sensitivities at ±16 g and ±2000 °/s. */
#define EC_LSM6DSV16X_ACCEL_FULL_M_S2 156.9064f
#define EC_LSM6DSV16X_GYRO_FULL_RAD_S 40.033665f

extern const ec_imu_chip EC_LSM6DSV16X;

#endif
