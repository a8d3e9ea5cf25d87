/* SPI0 and I2C0 as masters, in the form that sensors/ wants. No call waits for a sensor: each ends by a count. */
#ifndef RP2040_BUSES_H
#define RP2040_BUSES_H

#include "../sensors/bus.h"

void spi_start(void);
void i2c_start(void);

extern const ec_spi IMU_SPI;
extern const ec_i2c SENSOR_I2C;

#endif
