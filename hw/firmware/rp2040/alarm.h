/* The timer's alarms: 0 rows of the analogue inputs, 1 end of a transmission, 2 the main loop, 3 patience with I2C. */
#ifndef RP2040_ALARM_H
#define RP2040_ALARM_H

#include "gpio.h"
#include "registers.h"

/* Raise alarm n at t_us, or at once if that has passed: the hardware alone would wait for the counter to wrap. */
static inline void alarm_at(uint32_t n, uint32_t t_us)
{
    for (;;) {
        REG(TIMER_ALARM(n)) = t_us;
        const uint32_t now_us = micros_now();
        if ((int32_t)(t_us - now_us) > 0 || (REG(TIMER_ARMED) & 1u << n) == 0)
            return;
        t_us = now_us + 2u;
    }
}

#endif
