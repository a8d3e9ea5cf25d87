#include "light.h"

#include <string.h>

static void begin(ec_light *light, const uint8_t rgb[3], uint64_t now_us)
{
    memcpy(light->rgb, rgb, sizeof light->rgb);
    light->start_us = now_us;
    light->change_us = now_us;
}

static void set_rhythm(ec_light *light, uint16_t on_ms, uint16_t off_ms, uint8_t flashes)
{
    light->on_ms = on_ms;
    light->off_ms = off_ms;
    light->flashes = flashes;
}

void ec_light_pattern(ec_light *light, const uint8_t rgb[3], uint8_t pattern, uint64_t now_us)
{
    begin(light, rgb, now_us);
    light->pattern = pattern;
    light->has_rhythm = false;
    if (pattern == EC_STEADY)
        set_rhythm(light, 1, 0, 1);
    else if (pattern == EC_SLOW)
        set_rhythm(light, 1000, 1000, 1);
    else
        set_rhythm(light, 100, 100, 1);
}

void ec_light_rhythm(ec_light *light, const uint8_t rgb[3], uint16_t on_ms, uint16_t off_ms, uint8_t flashes,
                     uint64_t now_us)
{
    begin(light, rgb, now_us);
    light->has_rhythm = true;
    set_rhythm(light, on_ms, off_ms, flashes);
}

static bool breathes(const ec_light *light)
{
    return !light->has_rhythm && light->pattern == EC_BREATHE;
}

bool ec_light_is_lit(const ec_light *light)
{
    return light->on_ms != 0 && (light->rgb[0] | light->rgb[1] | light->rgb[2]) != 0;
}

bool ec_light_is_steady(const ec_light *light)
{
    return !light->has_rhythm && light->pattern == EC_STEADY && ec_light_is_lit(light);
}

/* Share of the brightness, 0 to 256, `into_us` after the period began, and until when it stays so. */
static uint32_t level_at(const ec_light *light, uint64_t into_us, uint64_t *until_us)
{
    const uint64_t on_us = light->on_ms * UINT64_C(1000);
    if (light->flashes <= 1) {
        *until_us = into_us < on_us ? on_us : on_us + light->off_ms * UINT64_C(1000);
        return into_us < on_us ? 256 : 0;
    }
    const uint64_t flash_us = EC_FLASH_MS * UINT64_C(1000);
    const uint64_t n = into_us / flash_us;
    if (n < 2u * light->flashes - 1u) {
        *until_us = (n + 1) * flash_us;
        return n % 2 == 0 ? 256 : 0;
    }
    *until_us = (2u * light->flashes - 1u) * flash_us + light->off_ms * UINT64_C(1000);
    return 0;
}

static uint64_t period_us(const ec_light *light)
{
    const uint64_t on_ms = light->flashes > 1 ? (2u * light->flashes - 1u) * EC_FLASH_MS : light->on_ms;
    return (on_ms + light->off_ms) * UINT64_C(1000);
}

bool ec_light_update(ec_light *light, uint64_t now_us)
{
    if (now_us < light->change_us)
        return false;
    uint32_t level = 256;
    const uint64_t since_us = now_us - light->start_us;
    if (breathes(light)) {
        const uint64_t into_us = since_us % EC_BREATHE_PERIOD_US;
        const uint64_t half_us = EC_BREATHE_PERIOD_US / 2;
        level = (uint32_t)((into_us < half_us ? into_us : EC_BREATHE_PERIOD_US - into_us) * 256 / half_us);
        light->change_us = now_us + EC_BREATHE_STEP_US;
    } else if (light->on_ms == 0 || light->off_ms == 0) {
        level = light->on_ms == 0 ? 0 : 256;
        light->change_us = UINT64_MAX;
    } else {
        const uint64_t into_us = since_us % period_us(light);
        uint64_t until_us = 0;
        level = level_at(light, into_us, &until_us);
        light->change_us = now_us + (until_us - into_us);
    }
    uint8_t shown[3];
    for (int c = 0; c < 3; c++)
        shown[c] = (uint8_t)(light->rgb[c] * level / 256);
    const bool changed = memcmp(shown, light->shown, sizeof shown) != 0;
    memcpy(light->shown, shown, sizeof shown);
    return changed;
}
