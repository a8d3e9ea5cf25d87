#include "buses.h"

#include "alarm.h"
#include "clocks.h"
#include "gpio.h"
#include "interrupts.h"
#include "pins.h"
#include "registers.h"

/* 125 MHz / (2 × 8) = 7.8 MHz; the ICM-42688-P takes 24 MHz, the LSM6DSV16X 10 MHz. */
#define SPI_PRESCALE 2u
#define SPI_RATE 8u
#define SPI_MODE_0_8_BITS (7u | (SPI_RATE - 1u) << 8)
/* A byte takes 1 us, its turn of the loop 0.1 us: this is far beyond any that comes. */
#define SPI_SPINS 1000u

#define I2C_HZ 400000u
#define I2C_READ (1u << 8)
#define I2C_STOP (1u << 9)
#define I2C_RESTART (1u << 10)
#define I2C_MASTER_FAST (1u << 0 | 2u << 1 | 1u << 5 | 1u << 6)
#define I2C_FIFO 16u
#define I2C_TX_EMPTY_CTRL (1u << 8)
/* 16 bytes take 0.4 ms; a bus on which that lasts longer than this is stuck. */
#define I2C_PATIENCE_US 1000u
#define HALF_BIT_US 5u

static bool spi_transfer(void *ctx, const uint8_t *out, uint8_t *in, size_t n)
{
    (void)ctx;
    gpio_set(PIN_IMU_CS, false);
    bool done = true;
    for (size_t i = 0; i < n && done; i++) {
        REG(SPI_DR) = out[i];
        uint32_t spins = 0;
        while ((REG(SPI_SR) & SPI_SR_RNE) == 0 && spins < SPI_SPINS)
            spins++;
        done = spins < SPI_SPINS;
        const uint8_t byte = (uint8_t)REG(SPI_DR);
        if (in != NULL)
            in[i] = byte;
    }
    gpio_set(PIN_IMU_CS, true);
    return done;
}

const ec_spi IMU_SPI = {0, spi_transfer};

void spi_start(void)
{
    gpio_connect(PIN_IMU_MISO, GPIO_SPI, PAD_INPUT_ENABLE | PAD_SCHMITT | PAD_PULL_DOWN | PAD_4MA);
    gpio_connect(PIN_IMU_SCK, GPIO_SPI, PAD_INPUT_ENABLE | PAD_SCHMITT | PAD_4MA);
    gpio_connect(PIN_IMU_MOSI, GPIO_SPI, PAD_INPUT_ENABLE | PAD_SCHMITT | PAD_4MA);
    gpio_output(PIN_IMU_CS, true);
    REG(SPI_CPSR) = SPI_PRESCALE;
    REG(SPI_CR0) = SPI_MODE_0_8_BITS;
    REG(SPI_CR1) = 1u << 1;
}

static void connect_i2c(enum gpio_function function)
{
    const uint32_t pad = PAD_INPUT_ENABLE | PAD_SCHMITT | PAD_PULL_UP | PAD_4MA;
    gpio_connect(PIN_I2C_SDA, function, pad);
    gpio_connect(PIN_I2C_SCL, function, pad);
}

void i2c_start(void)
{
    connect_i2c(GPIO_I2C);
    REG(I2C_ENABLE) = 0;
    REG(I2C_CON) = I2C_MASTER_FAST | I2C_TX_EMPTY_CTRL;
    const uint32_t period = SYSTEM_HZ / I2C_HZ;
    const uint32_t low = period * 3u / 5u;
    REG(I2C_FS_LCNT) = low;
    REG(I2C_FS_HCNT) = period - low;
    REG(I2C_FS_SPKLEN) = low / 16u;
    REG(I2C_SDA_HOLD) = SYSTEM_HZ / 10000000u * 3u + 1u; /* 300 ns */
    REG(I2C_INTR_MASK) = 0;
    REG(I2C_ENABLE) = 1;
    interrupt_enable(IRQ_I2C0, 3);
    REG_SET(TIMER_INTE) = 1u << 3;
    interrupt_enable(IRQ_TIMER_3, 3);
}

static void wait_us(uint32_t us)
{
    const uint32_t begun = micros_now();
    while (micros_now() - begun <= us)
        ;
}

/* A sensor that lost count of its clock holds SDA: nine pulses let it finish its byte, then comes a stop. */
static void free_bus(void)
{
    REG(I2C_ENABLE) = 0;
    REG(SIO_GPIO_OUT_CLR) = 1u << PIN_I2C_SCL | 1u << PIN_I2C_SDA;
    REG(SIO_GPIO_OE_CLR) = 1u << PIN_I2C_SCL | 1u << PIN_I2C_SDA;
    connect_i2c(GPIO_SIO);
    for (int pulse = 0; pulse < 9; pulse++) {
        REG(SIO_GPIO_OE_SET) = 1u << PIN_I2C_SCL;
        wait_us(HALF_BIT_US);
        REG(SIO_GPIO_OE_CLR) = 1u << PIN_I2C_SCL;
        wait_us(HALF_BIT_US);
    }
    REG(SIO_GPIO_OE_SET) = 1u << PIN_I2C_SDA;
    wait_us(HALF_BIT_US);
    REG(SIO_GPIO_OE_CLR) = 1u << PIN_I2C_SDA;
    wait_us(HALF_BIT_US);
    i2c_start();
}

static bool i2c_aborted(void)
{
    return (REG(I2C_RAW_INTR_STAT) & I2C_INTR_TX_ABRT) != 0;
}

void i2c_done_isr(void)
{
    REG(I2C_INTR_MASK) = 0; /* the main loop looks */
}

void i2c_late_isr(void)
{
    REG(TIMER_INTR) = 1u << 3;
}

/* Sleep until the transfer has ended in a stop; false if it does not. */
static bool i2c_ends(void)
{
    const uint32_t begun_us = micros_now();
    alarm_at(3, begun_us + I2C_PATIENCE_US);
    for (;;) {
        interrupts_off();
        const bool ended = (REG(I2C_RAW_INTR_STAT) & I2C_INTR_STOP_DET) != 0;
        const bool late = micros_now() - begun_us >= I2C_PATIENCE_US;
        if (!ended && !late) {
            REG(I2C_INTR_MASK) = I2C_INTR_STOP_DET;
            sleep_until_interrupt();
        }
        interrupts_on();
        if (ended || late)
            return ended;
    }
}

static ec_i2c_result i2c_finish(uint8_t *in, size_t n_in)
{
    if (!i2c_ends()) {
        free_bus();
        return EC_I2C_STUCK;
    }
    const bool aborted = i2c_aborted();
    size_t got = 0;
    while (REG(I2C_RXFLR) > 0) {
        const uint8_t byte = (uint8_t)REG(I2C_DATA_CMD);
        if (got < n_in)
            in[got] = byte;
        got++;
    }
    return aborted || got < n_in ? EC_I2C_NO_ANSWER : EC_I2C_OK;
}

static ec_i2c_result i2c_transfer(void *ctx, uint8_t address, const uint8_t *out, size_t n_out, uint8_t *in,
                                  size_t n_in)
{
    (void)ctx;
    if (n_out + n_in > I2C_FIFO)
        return EC_I2C_STUCK;
    REG(I2C_ENABLE) = 0;
    REG(I2C_TAR) = address;
    REG(I2C_ENABLE) = 1;
    (void)REG(I2C_CLR_STOP_DET);
    (void)REG(I2C_CLR_TX_ABRT);
    for (size_t i = 0; i < n_out && !i2c_aborted(); i++)
        REG(I2C_DATA_CMD) = out[i] | (i + 1 == n_out && n_in == 0 ? I2C_STOP : 0u);
    for (size_t i = 0; i < n_in && !i2c_aborted(); i++)
        REG(I2C_DATA_CMD) = I2C_READ | (i == 0 ? I2C_RESTART : 0u) | (i + 1 == n_in ? I2C_STOP : 0u);
    return i2c_finish(in, n_in);
}

const ec_i2c SENSOR_I2C = {0, i2c_transfer};
