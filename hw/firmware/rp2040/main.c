/* The RP2040 board: connects core/ to the peripherals, and sleeps whenever there is nothing to do. */
#include <stddef.h>
#include <string.h>

#include "../core/device.h"
#include "../core/wire.h"
#include "../sensors/icm42688.h"
#include "../sensors/lsm6dsv16x.h"
#include "../sensors/mlx90393.h"
#include "alarm.h"
#include "analog.h"
#include "board.h"
#include "buses.h"
#include "clocks.h"
#include "gpio.h"
#include "identity.h"
#include "interrupts.h"
#include "line.h"
#include "pins.h"
#include "registers.h"
#include "rgb.h"
#include "watchdog.h"

#define US_PER_S_MHZ UINT64_C(1000000000)
/* The main loop looks at everything at least so often, which also feeds the watchdog. */
#define SLEEP_US 50000u
#define BUTTON_EDGES 32u
#define ANALOG_RATE_MAX_MHZ 3000000u
/* After power-up an inertial sensor answers by then. */
#define IMU_AWAKE_US 20000u

static ec_device device;
static ec_imu imu;
static ec_mlx_group magnets;
/* What ec_init() was given: the board's streams without those of magnetometers that are not fitted. */
static ec_stream streams[EC_MAX_STREAMS];
static ec_channel axes[EC_IMU_CHANNELS];
static uint8_t n_streams;
static uint8_t first_magnet; /* its stream; the others follow */
static const char *told[EC_MAX_STREAMS];
static char reasons[EC_MAX_STREAMS][EC_TEXT_MAX + 1];
static uint32_t told_line_lost;
static volatile bool woken; /* alarm 2 has come */

static struct {
    uint32_t t_us[BUTTON_EDGES];
    bool down[BUTTON_EDGES];
    volatile uint32_t put;
    uint32_t taken;
} button;

void interrupt_enable(uint32_t irq, uint32_t priority)
{
    const uint32_t shift = irq % 4u * 8u + 6u;
    REG(NVIC_PRIORITY(irq / 4u)) = (REG(NVIC_PRIORITY(irq / 4u)) & ~(3u << shift)) | priority << shift;
    REG(NVIC_ENABLE) = 1u << irq;
}

void wake_isr(void)
{
    REG(TIMER_INTR) = 1u << 2;
    woken = true;
}

void pins_isr(void)
{
    const uint32_t now_us = micros_now();
    const uint32_t imu_edge = GPIO_EDGE_HIGH(PIN_IMU_INT1);
    if ((REG(GPIO_INTR(PIN_IMU_INT1)) & imu_edge) != 0) {
        REG(GPIO_INTR(PIN_IMU_INT1)) = imu_edge;
        ec_imu_edge(&imu, now_us);
    }
    const uint32_t button_edges = GPIO_EDGE_LOW(PIN_BUTTON) | GPIO_EDGE_HIGH(PIN_BUTTON);
    if ((REG(GPIO_INTR(PIN_BUTTON)) & button_edges) != 0) {
        REG(GPIO_INTR(PIN_BUTTON)) = button_edges;
        const uint32_t at = button.put;
        if (at - button.taken < BUTTON_EDGES) {
            button.t_us[at % BUTTON_EDGES] = now_us;
            button.down[at % BUTTON_EDGES] = !gpio_is_high(PIN_BUTTON);
            button.put = at + 1;
        }
    }
}

static void start_pins(void)
{
    gpio_connect(PIN_BUTTON, GPIO_SIO, PAD_INPUT_ENABLE | PAD_SCHMITT | PAD_PULL_UP);
    gpio_connect(PIN_IMU_INT1, GPIO_SIO, PAD_INPUT_ENABLE | PAD_SCHMITT | PAD_PULL_DOWN);
    REG_SET(GPIO_INTE(PIN_BUTTON)) = GPIO_EDGE_LOW(PIN_BUTTON) | GPIO_EDGE_HIGH(PIN_BUTTON);
    if (BOARD_HERE.imu != EC_NO_STREAM)
        REG_SET(GPIO_INTE(PIN_IMU_INT1)) = GPIO_EDGE_HIGH(PIN_IMU_INT1);
    interrupt_enable(IRQ_IO_BANK0, 0);
}

/* ── what the core asks of the board ─────────────────────────────────────────────────────────────────── */

static uint32_t micros(void *ctx)
{
    (void)ctx;
    return micros_now();
}

static uint32_t boot_id(void *ctx)
{
    (void)ctx;
    return identity_boot_id();
}

static void transmit(void *ctx, const uint8_t *bytes, size_t n)
{
    (void)ctx;
    line_send(bytes, n);
}

static bool no_row(void *ctx, uint8_t stream, uint32_t index, uint64_t t_us, uint8_t *row)
{
    (void)ctx;
    (void)stream;
    (void)index;
    (void)t_us;
    (void)row;
    return false; /* every stream's rows are given */
}

/* Nobody can tell a force-sensing resistor that is not there from one that nobody touches. */
static bool alive(void *ctx, uint8_t stream)
{
    (void)ctx;
    return stream == BOARD_HERE.force || ec_rows_come(&device, stream);
}

static void sampling(void *ctx, bool on)
{
    (void)ctx;
    if (BOARD_HERE.force == EC_NO_STREAM)
        return;
    if (on)
        analog_run(device.start_us, device.samplers[BOARD_HERE.force].rate_mhz);
    else
        analog_stop();
}

static bool rate(void *ctx, uint8_t stream, uint32_t rate_mhz)
{
    (void)ctx;
    if (stream == BOARD_HERE.force)
        return rate_mhz <= ANALOG_RATE_MAX_MHZ;
    return rate_mhz == streams[stream].rate_mhz;
}

static bool tare(void *ctx, uint8_t stream)
{
    (void)ctx;
    (void)stream;
    return false; /* raw counts are sent; the zero belongs to the calibration */
}

static void led(void *ctx, uint8_t red, uint8_t green, uint8_t blue)
{
    (void)ctx;
    rgb_show(red, green, blue);
}

static void reset(void *ctx)
{
    (void)ctx;
    watchdog_reset();
}

/* ── what the board tells the core ───────────────────────────────────────────────────────────────────── */

static void take_line(void)
{
    uint8_t byte;
    uint32_t t_us;
    if (line_take_sent(&t_us))
        ec_transmitted(&device, t_us);
    while (line_take_received(&byte, &t_us))
        ec_receive(&device, byte, t_us);
    if (line_lost() != told_line_lost) {
        told_line_lost = line_lost();
        ec_send_log(&device, EC_WARNING, "bytes from the host were lost or broken");
    }
}

static uint64_t now_64(void *ctx)
{
    (void)ctx;
    return device.now_us + (uint32_t)(micros_now() - (uint32_t)device.now_us);
}

static void take_button(void)
{
    while (button.taken != button.put) {
        const uint32_t at = button.taken % BUTTON_EDGES;
        const uint64_t now_us = now_64(NULL);
        ec_button_edge(&device.button, button.down[at], now_us - (uint32_t)((uint32_t)now_us - button.t_us[at]));
        button.taken++;
    }
}

static void take_analog(void)
{
    uint64_t t_us;
    int16_t values[ANALOG_MAX_CHANNELS];
    uint8_t row[2 * ANALOG_MAX_CHANNELS];
    const uint8_t n = streams[BOARD_HERE.force].n_channels;
    while (analog_take(&t_us, values)) {
        uint8_t *p = row;
        for (uint8_t i = 0; i < n; i++)
            p = ec_put_u16(p, (uint16_t)values[i]);
        ec_give_row(&device, BOARD_HERE.force, t_us, row);
    }
    const uint32_t lost = analog_take_lost(&t_us);
    if (lost > 0)
        ec_lose_rows(&device, BOARD_HERE.force, t_us, lost);
}

static void give_imu_row(void *ctx, uint64_t t_us, const uint8_t *row)
{
    (void)ctx;
    ec_give_row(&device, BOARD_HERE.imu, t_us, row);
}

static void lose_imu_rows(void *ctx, uint64_t t_us, uint32_t n)
{
    (void)ctx;
    ec_lose_rows(&device, BOARD_HERE.imu, t_us, n);
}

static char *put_text(char *p, const char *end, const char *text)
{
    while (*text != 0 && p < end)
        *p++ = *text++;
    *p = 0;
    return p;
}

/* A sensor's fault goes into the log once, and into the sensor-fault event while sampling. `chip` says which one
 * it is of several, with its address; NULL where the stream's name does. */
static void tell_fault(uint8_t stream, const char *fault, const char *chip, uint8_t address)
{
    static const char HEX[] = "0123456789ABCDEF";
    if (fault == told[stream])
        return;
    told[stream] = fault;
    ec_explain_fault(&device, stream, fault != NULL ? reasons[stream] : NULL);
    if (fault == NULL)
        return;
    char *p = reasons[stream];
    const char *end = reasons[stream] + EC_TEXT_MAX;
    if (chip != NULL) {
        const char where[] = {' ', '0', 'x', HEX[address >> 4], HEX[address & 15u], ':', ' ', 0};
        p = put_text(put_text(p, end, chip), end, where);
    }
    put_text(p, end, fault);
    char text[EC_LOG_TEXT_MAX + 1];
    const char *log_end = text + EC_LOG_TEXT_MAX;
    put_text(put_text(put_text(text, log_end, streams[stream].name), log_end, ": "), log_end, reasons[stream]);
    ec_send_log(&device, EC_WARNING, text);
}

static void take_magnets(void)
{
    const int row = ec_mlx90393_step(&magnets, now_64, NULL);
    if (row != EC_MLX90393_NO_ROW)
        ec_give_row(&device, (uint8_t)(first_magnet + row), magnets.sensors[row].t_us, magnets.sensors[row].row);
    for (uint8_t i = 0; i < magnets.n; i++)
        tell_fault((uint8_t)(first_magnet + i), magnets.sensors[i].fault, "MLX90393", magnets.sensors[i].address);
}

static void take_sensors(void)
{
    static const ec_imu_sink SINK = {NULL, give_imu_row, lose_imu_rows};
    if (BOARD_HERE.force != EC_NO_STREAM)
        take_analog();
    if (BOARD_HERE.imu != EC_NO_STREAM) {
        ec_imu_step(&imu, now_64(NULL), &SINK);
        tell_fault(BOARD_HERE.imu, imu.fault, NULL, 0);
    }
    if (magnets.n > 0)
        take_magnets();
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_us(void)
{
    uint64_t next = earlier(device.now_us + SLEEP_US, ec_next_wake_us(&device));
    if (BOARD_HERE.imu != EC_NO_STREAM)
        next = earlier(next, imu.due_us);
    if (magnets.n > 0)
        next = earlier(next, magnets.due_us);
    return next;
}

static bool has_news(void)
{
    return line_has_news() || button.taken != button.put || analog_has_news();
}

/* Sleep until the main loop has something to do; most interrupts bring nothing yet. They are off between the look and
 * the sleep: one that comes in between ends the sleep at once. */
static void rest(void)
{
    const uint64_t next = next_us();
    const uint64_t now = now_64(NULL);
    if (next <= now)
        return;
    woken = false;
    alarm_at(2, (uint32_t)next);
    for (bool asleep = true; asleep;) {
        interrupts_off();
        asleep = !woken && !has_news();
        if (asleep)
            sleep_until_interrupt();
        interrupts_on();
    }
}

/* The inertial sensor that is fitted, which its stream then describes. One that comes only later must be of the kind
 * that every board takes for granted. */
static void start_imu(void)
{
    static const ec_imu_chip *const CHIPS[] = {&EC_ICM42688, &EC_LSM6DSV16X};
    ec_stream *stream = &streams[BOARD_HERE.imu];
    while (micros_now() < IMU_AWAKE_US)
        ;
    const ec_imu_chip *chip = ec_imu_find(&IMU_SPI, CHIPS, sizeof CHIPS / sizeof *CHIPS);
    for (uint8_t i = 0; i < EC_IMU_CHANNELS; i++) {
        axes[i] = stream->channels[i];
        axes[i].full_scale = i < EC_IMU_CHANNELS / 2 ? chip->accel_full_m_s2 : chip->gyro_full_rad_s;
        axes[i].scale = axes[i].full_scale / 32768.0f;
    }
    stream->channels = axes;
    stream->lag_us = chip->lag_us;
    ec_imu_init(&imu, chip, &IMU_SPI);
}

/* The streams of this board: all of its kind, without the magnetometers that are not fitted. */
static void start_magnets(void)
{
    uint8_t addresses[EC_MAX_STREAMS];
    uint8_t n = 0;
    first_magnet = (uint8_t)(BOARD_HERE.n_streams - BOARD_HERE.n_magnetic);
    memcpy(streams, BOARD_HERE.streams, BOARD_HERE.n_streams * sizeof *streams);
    for (uint8_t i = 0; i < BOARD_HERE.n_magnetic; i++) {
        if (!identity_has_magnet(BOARD_HERE.magnetic[i].finger))
            continue;
        streams[first_magnet + n] = BOARD_HERE.streams[first_magnet + i];
        addresses[n++] = BOARD_HERE.magnetic[i].address;
    }
    n_streams = (uint8_t)(first_magnet + n);
    if (n == 0)
        return;
    i2c_start();
    ec_mlx90393_init(&magnets, &SENSOR_I2C, addresses, n, (uint32_t)(US_PER_S_MHZ / streams[first_magnet].rate_mhz));
}

static void start_board(const char *serial_number)
{
    unreset(RESET_IO_BANK0 | RESET_PADS_BANK0 | RESET_TIMER);
    clocks_start();
    unreset(RESET_ADC | RESET_DMA | RESET_I2C0 | RESET_PWM | RESET_SPI0 | RESET_UART0 | RESET_USB);
    watchdog_start();
    rgb_start();
    line_start(serial_number);
    start_pins();
    if (BOARD_HERE.force != EC_NO_STREAM)
        analog_start(&BOARD_HERE.analog);
    start_magnets();
    if (BOARD_HERE.imu != EC_NO_STREAM) {
        spi_start();
        start_imu();
    }
    REG_SET(TIMER_INTE) = 1u << 2;
    interrupt_enable(IRQ_TIMER_2, 3);
}

int main(void)
{
    static const ec_hal HAL = {NULL, micros, boot_id, transmit, no_row, alive, sampling, rate, tare, led, reset};
    const char *serial_number = identity_serial();
    start_board(serial_number);
    if (ec_init(&device, &HAL, streams, n_streams, serial_number) != NULL)
        for (;;) /* a board table that cannot be described: resets for ever */
            ;
    for (;;) {
        watchdog_feed();
        take_line();
        take_button();
        take_sensors();
        ec_poll(&device);
        rest();
    }
}
