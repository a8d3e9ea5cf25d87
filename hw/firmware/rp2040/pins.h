/* Every pin of the RP2040 board, by GPIO number; the same on all variants. hw/pinout.toml draws from the same
 * numbers. The numbers are those of the Raspberry Pi Pico's pins GP0 to GP28; GPIO29 is its supply monitor and
 * free only on boards that bring it out. */
#ifndef RP2040_PINS_H
#define RP2040_PINS_H

/* Line to the capture daemon: UART0, 1,000,000 baud. */
#define PIN_UART_TX 0
#define PIN_UART_RX 1

/* Magnetic sensors MLX90393: I2C0. */
#define PIN_I2C_SDA 4
#define PIN_I2C_SCL 5

/* Analogue multiplexer CD74HC4067: its select inputs S0 to S3 and its enable, active low. */
#define PIN_MUX_S0 6
#define PIN_MUX_S1 7
#define PIN_MUX_S2 8
#define PIN_MUX_S3 9
#define PIN_MUX_ENABLE 10

/* Button, to ground; pulled up inside. */
#define PIN_BUTTON 11

/* RGB light, common cathode, each through its resistor. */
#define PIN_LED_RED 12
#define PIN_LED_GREEN 13
#define PIN_LED_BLUE 14

/* Inertial sensor, ICM-42688-P or LSM6DSV16X: SPI0 and its interrupt 1. */
#define PIN_IMU_MISO 16
#define PIN_IMU_CS 17
#define PIN_IMU_SCK 18
#define PIN_IMU_MOSI 19
#define PIN_IMU_INT1 20

/* Analogue inputs: the multiplexer's common output, or the first of the direct inputs. */
#define PIN_ADC0 26
#define PIN_ADC1 27
#define PIN_ADC2 28
#define PIN_ADC3 29

#endif
