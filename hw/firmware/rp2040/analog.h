/* Rows of the analogue inputs: at each instant one conversion burst per multiplexer position, moved by DMA.
 *
 * Direct inputs have one position, in which the ADC goes round them. With a multiplexer each position is converted
 * ANALOG_SETTLE times for nothing, while its source charges the input, then ANALOG_SUM times; a value is the sum of
 * ANALOG_SUM conversions of 12 bits. One conversion takes 2 us. */
#ifndef RP2040_ANALOG_H
#define RP2040_ANALOG_H

#include <stdbool.h>
#include <stdint.h>

#define ANALOG_SUM 4u
#define ANALOG_SETTLE 2u
#define ANALOG_MAX_CHANNELS 16u
#define ANALOG_MAX_DIRECT 4u
/* Conversions and the switching between positions; measured in the emulator, where an interrupt costs what its
 * instructions do. */
#define ANALOG_POSITION_US 15u

typedef struct {
    uint8_t positions; /* of the multiplexer; 1 without */
    uint8_t inputs;    /* direct inputs, from ADC0 on; 1 with a multiplexer */
} analog_layout;

void analog_start(const analog_layout *layout);

/* Take row k at start_us + k * 10^9 / rate_mhz, from k = 0 on. */
void analog_run(uint64_t start_us, uint32_t rate_mhz);
void analog_stop(void);

/* The oldest row, one int16 per channel; false if there is none. */
bool analog_take(uint64_t *t_us, int16_t *values);

/* Rows lost since the last call, and when the first of them was due. */
uint32_t analog_take_lost(uint64_t *t_us);

bool analog_has_news(void);

#endif
