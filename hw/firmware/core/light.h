/* The light: a colour in a rhythm. What shows at an instant is computed, so that no timer drifts. */
#ifndef EC_LIGHT_H
#define EC_LIGHT_H

#include <stdbool.h>
#include <stdint.h>

/* A short flash and the pause after it, where a rhythm has more than one. */
#define EC_FLASH_MS 120u
/* Steps in which a breathing light changes. */
#define EC_BREATHE_STEP_US 20000u
#define EC_BREATHE_PERIOD_US 3000000u

enum ec_pattern { EC_STEADY = 0, EC_SLOW = 1, EC_FAST = 2, EC_BREATHE = 3 };

typedef struct {
    uint8_t rgb[3];
    uint8_t pattern;
    bool has_rhythm; /* the three below were given, and hold instead of the pattern */
    uint16_t on_ms;
    uint16_t off_ms;
    uint8_t flashes;
    uint64_t start_us;
    uint64_t change_us; /* when it next changes; UINT64_MAX never */
    uint8_t shown[3];
} ec_light;

/* Begin to show a colour steadily or in a pattern; an unknown pattern blinks fast. */
void ec_light_pattern(ec_light *light, const uint8_t rgb[3], uint8_t pattern, uint64_t now_us);

/* Begin to show a colour for `on_ms` of every on_ms + off_ms; with more than one flash, that many short ones in
 * place of on_ms. off_ms 0 is steady, on_ms 0 dark. */
void ec_light_rhythm(ec_light *light, const uint8_t rgb[3], uint16_t on_ms, uint16_t off_ms, uint8_t flashes,
                     uint64_t now_us);

/* Work out what is to be shown at `now_us`; true if it differs from before. */
bool ec_light_update(ec_light *light, uint64_t now_us);

/* Whether anything is to be seen of it at all. */
bool ec_light_is_lit(const ec_light *light);

/* Whether a steady colour other than black is shown: what LED events tell of. */
bool ec_light_is_steady(const ec_light *light);

#endif
