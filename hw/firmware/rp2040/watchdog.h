/* The watchdog: a main loop that stands still for half a second ends in a reset. */
#ifndef RP2040_WATCHDOG_H
#define RP2040_WATCHDOG_H

#include "registers.h"

#define WATCHDOG_US 500000u
/* Erratum E1: it counts two for each microsecond. */
#define WATCHDOG_COUNT (2u * WATCHDOG_US)
/* Everything but the oscillators is reset. */
#define PSM_ALL_BUT_OSCILLATORS 0x0001FFFCu

static inline void watchdog_feed(void)
{
    REG(WATCHDOG_LOAD) = WATCHDOG_COUNT;
}

static inline void watchdog_start(void)
{
    REG(PSM_WDSEL) = PSM_ALL_BUT_OSCILLATORS;
    watchdog_feed();
    REG(WATCHDOG_CTRL) = WATCHDOG_ENABLE;
}

static inline void watchdog_reset(void)
{
    REG(WATCHDOG_CTRL) = WATCHDOG_ENABLE | WATCHDOG_TRIGGER;
}

#endif
