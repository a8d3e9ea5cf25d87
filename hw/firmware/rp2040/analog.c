#include "analog.h"

#include "alarm.h"
#include "gpio.h"
#include "interrupts.h"
#include "pins.h"
#include "registers.h"

#define ADC_DMA 0u
#define RING 64u
#define MUX_PINS (15u << PIN_MUX_S0)
#define ADC_FIFO_DEPTH 4u

_Static_assert(PIN_MUX_S1 == PIN_MUX_S0 + 1 && PIN_MUX_S2 == PIN_MUX_S0 + 2 && PIN_MUX_S3 == PIN_MUX_S0 + 3,
               "the multiplexer's select pins follow one another");
_Static_assert(PIN_ADC0 == 26 && PIN_ADC1 == 27 && PIN_ADC2 == 28 && PIN_ADC3 == 29, "ADC inputs are fixed");

typedef struct {
    uint64_t t_us;
    int16_t values[ANALOG_MAX_CHANNELS];
} row;

static analog_layout layout;
static uint32_t burst; /* conversions of one position */
static uint16_t conversions[ANALOG_SETTLE + ANALOG_SUM * ANALOG_MAX_DIRECT];
static uint8_t position;
static volatile bool converting;
static volatile bool running;

static uint64_t begin_us;
static uint32_t rate;
static uint64_t tick;   /* of the next row */
static uint64_t due_us; /* when it is due */
static row current;

static row ring[RING];
static volatile uint32_t ring_put;
static volatile uint32_t ring_taken;
static volatile uint32_t lost;
static uint64_t lost_us;

void analog_start(const analog_layout *wanted)
{
    layout = *wanted;
    burst = layout.positions > 1 ? ANALOG_SETTLE + ANALOG_SUM : ANALOG_SUM * layout.inputs;
    for (uint32_t pin = PIN_ADC0; pin < (uint32_t)PIN_ADC0 + layout.inputs; pin++)
        gpio_connect(pin, GPIO_NONE, PAD_OUTPUT_DISABLE);
    if (layout.positions > 1) {
        for (uint32_t pin = PIN_MUX_S0; pin <= PIN_MUX_S3; pin++)
            gpio_output(pin, false);
        gpio_output(PIN_MUX_ENABLE, false);
    }
    REG(ADC_CS) = ADC_CS_EN;
    while ((REG(ADC_CS) & ADC_CS_READY) == 0)
        ;
    REG(ADC_DIV) = 0; /* one conversion after the other: 96 periods of 48 MHz */
    REG(ADC_FCS) = ADC_FCS_EN | ADC_FCS_DREQ_EN | ADC_FCS_THRESH(1u);
    REG_SET(DMA_INTE0) = 1u << ADC_DMA;
    interrupt_enable(IRQ_DMA_0, 0);
    REG_SET(TIMER_INTE) = 1u << 0;
    interrupt_enable(IRQ_TIMER_0, 0);
}

static void convert_position(void)
{
    REG(DMA_READ(ADC_DMA)) = ADC_FIFO;
    REG(DMA_WRITE(ADC_DMA)) = (uint32_t)(uintptr_t)conversions;
    REG(DMA_COUNT(ADC_DMA)) = burst;
    REG(DMA_CTRL(ADC_DMA)) =
        DMA_ENABLE | DMA_SIZE_16 | DMA_INCR_WRITE | DMA_REQUEST(DREQ_ADC) | DMA_CHAIN_TO(ADC_DMA);
    const uint32_t inputs = layout.inputs > 1 ? ADC_CS_RROBIN((1u << layout.inputs) - 1u) : 0u;
    REG(ADC_CS) = ADC_CS_EN | ADC_CS_AINSEL(0u) | inputs | ADC_CS_START_MANY;
}

static void lose(uint64_t t_us)
{
    if (lost == 0)
        lost_us = t_us;
    lost++;
}

static void begin_row(uint64_t t_us)
{
    if (converting) {
        lose(t_us);
        return;
    }
    converting = true;
    current.t_us = t_us;
    position = 0;
    REG(SIO_GPIO_OUT_CLR) = layout.positions > 1 ? MUX_PINS : 0u;
    convert_position();
}

void analog_begin_isr(void)
{
    REG(TIMER_INTR) = 1u << 0;
    if (!running)
        return;
    begin_row(due_us);
    tick++;
    due_us = begin_us + tick * UINT64_C(1000000000) / rate;
    alarm_at(0, (uint32_t)due_us);
}

/* Stop converting, and forget what was converted after the burst: at most the FIFO and one under way. */
static void halt(void)
{
    REG(ADC_CS) = ADC_CS_EN;
    while ((REG(ADC_CS) & ADC_CS_READY) == 0)
        ;
    for (uint32_t i = 0; i <= ADC_FIFO_DEPTH && (REG(ADC_FCS) & ADC_FCS_EMPTY) == 0; i++)
        (void)REG(ADC_FIFO);
}

static void sum_position(void)
{
    const uint32_t first = layout.positions > 1 ? ANALOG_SETTLE : 0u;
    for (uint32_t input = 0; input < layout.inputs; input++) {
        uint32_t sum = 0;
        for (uint32_t k = 0; k < ANALOG_SUM; k++)
            sum += conversions[first + k * layout.inputs + input];
        current.values[position + input] = (int16_t)sum;
    }
}

static void keep_row(void)
{
    converting = false;
    if (ring_put - ring_taken == RING) {
        lose(current.t_us);
        return;
    }
    ring[ring_put % RING] = current;
    ring_put++;
}

void analog_position_isr(void)
{
    REG(DMA_INTS0) = 1u << ADC_DMA;
    const bool more = position + 1u < layout.positions;
    if (more) { /* the next source settles while this one is summed */
        REG(SIO_GPIO_OUT_CLR) = MUX_PINS;
        REG(SIO_GPIO_OUT_SET) = (position + 1u) << PIN_MUX_S0;
    }
    halt();
    sum_position();
    if (!more) {
        keep_row();
        return;
    }
    position++;
    convert_position();
}

void analog_run(uint64_t start_us, uint32_t rate_mhz)
{
    analog_stop();
    begin_us = start_us;
    rate = rate_mhz;
    tick = 0;
    due_us = start_us;
    ring_taken = ring_put;
    lost = 0;
    running = true;
    alarm_at(0, (uint32_t)due_us);
}

void analog_stop(void)
{
    running = false;
    while (converting) /* a row takes a quarter of a millisecond */
        ;
}

bool analog_take(uint64_t *t_us, int16_t *values)
{
    if (ring_put == ring_taken)
        return false;
    const row *oldest = &ring[ring_taken % RING];
    *t_us = oldest->t_us;
    for (uint32_t i = 0; i < ANALOG_MAX_CHANNELS; i++)
        values[i] = oldest->values[i];
    ring_taken++;
    return true;
}

uint32_t analog_take_lost(uint64_t *t_us)
{
    if (lost == 0)
        return 0;
    interrupts_off();
    const uint32_t n = lost;
    *t_us = lost_us;
    lost = 0;
    interrupts_on();
    return n;
}

bool analog_has_news(void)
{
    return ring_put != ring_taken || lost != 0;
}
