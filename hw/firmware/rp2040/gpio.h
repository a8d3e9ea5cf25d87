/* Pins: what a pin is connected to, and its pad. */
#ifndef RP2040_GPIO_H
#define RP2040_GPIO_H

#include <stdbool.h>
#include <stdint.h>

#include "registers.h"

static inline void gpio_connect(uint32_t pin, enum gpio_function function, uint32_t pad)
{
    REG(PAD(pin)) = pad;
    REG(GPIO_CTRL(pin)) = (uint32_t)function;
}

static inline void gpio_set(uint32_t pin, bool high)
{
    REG(high ? SIO_GPIO_OUT_SET : SIO_GPIO_OUT_CLR) = 1u << pin;
}

static inline void gpio_output(uint32_t pin, bool high)
{
    gpio_set(pin, high);
    REG(SIO_GPIO_OE_SET) = 1u << pin;
    gpio_connect(pin, GPIO_SIO, PAD_INPUT_ENABLE | PAD_SCHMITT | PAD_4MA);
}

static inline bool gpio_is_high(uint32_t pin)
{
    return (REG(SIO_GPIO_IN) >> pin & 1u) != 0;
}

static inline uint32_t micros_now(void)
{
    return REG(TIMER_RAWL);
}

#endif
