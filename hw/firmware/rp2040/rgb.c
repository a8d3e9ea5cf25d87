#include "rgb.h"

#include <stdbool.h>

#include "gpio.h"
#include "pins.h"
#include "registers.h"

/* 125 MHz / 250 / 255: 1961 Hz. */
#define PWM_CLOCK_DIVIDER (250u << 4)
#define PWM_TOP_LEVEL 254u

static const uint32_t PINS[3] = {PIN_LED_RED, PIN_LED_GREEN, PIN_LED_BLUE};

static uint32_t slice_of(uint32_t pin)
{
    return pin / 2u % 8u;
}

void rgb_start(void)
{
    for (int c = 0; c < 3; c++) {
        gpio_output(PINS[c], false);
        REG(PWM_DIV(slice_of(PINS[c]))) = PWM_CLOCK_DIVIDER;
        REG(PWM_TOP(slice_of(PINS[c]))) = PWM_TOP_LEVEL;
    }
}

/* Full and dark leave the modulator out: a camera would see its bands, and LED events tell of sharp edges. */
static bool modulated(uint8_t level)
{
    return level != 0 && level != 255;
}

void rgb_show(uint8_t red, uint8_t green, uint8_t blue)
{
    const uint8_t levels[3] = {red, green, blue};
    uint32_t running = 0;
    for (int c = 0; c < 3; c++) {
        const uint32_t pin = PINS[c];
        const uint32_t shift = pin % 2u * 16u;
        if (!modulated(levels[c])) {
            gpio_set(pin, levels[c] != 0);
            REG(GPIO_CTRL(pin)) = GPIO_SIO;
            continue;
        }
        REG(PWM_CC(slice_of(pin))) = (REG(PWM_CC(slice_of(pin))) & ~(0xFFFFu << shift)) | (uint32_t)levels[c] << shift;
        REG(GPIO_CTRL(pin)) = GPIO_PWM;
        running |= 1u << slice_of(pin);
    }
    for (int c = 0; c < 3; c++)
        REG(PWM_CSR(slice_of(PINS[c]))) = running >> slice_of(PINS[c]) & 1u;
}
