#define _DEFAULT_SOURCE
#include "model.h"

#include <math.h>

#include "random.h"

#define SINES 4
#define GRAVITY_M_S2 9.80665
#define GRASP_PERIOD_S 3.5

/* A fixed random number in [0, 1) for each (seed, what, number). */
static double fixed(uint64_t seed, uint64_t what, uint64_t number)
{
    uint64_t state = random_mix(seed ^ what << 40) ^ number * UINT64_C(0x9E3779B97F4A7C15);
    return random_unit(&state);
}

/* Approximately normal with unit variance: the sum of four uniforms. */
static double noise(uint64_t *state)
{
    double sum = -2.0;
    for (int i = 0; i < 4; i++)
        sum += random_unit(state);
    return sum * 1.7320508075688772;
}

/* Value, first and second derivative of one axis of the motion: a sum of sines of 0.2 to 2.6 Hz. */
static void axis(uint64_t seed, uint64_t number, double t_s, double out[3])
{
    out[0] = out[1] = out[2] = 0.0;
    for (uint64_t k = 0; k < SINES; k++) {
        const uint64_t n = number * SINES + k;
        const double w = 2.0 * M_PI * (0.2 + 0.6 * (double)k + 0.5 * fixed(seed, 1, n));
        const double a = 1.0 / (1.0 + (double)k * (double)k);
        const double phase = w * t_s + 2.0 * M_PI * fixed(seed, 2, n);
        out[0] += a * sin(phase);
        out[1] += a * w * cos(phase);
        out[2] -= a * w * w * sin(phase);
    }
}

/* World vector into the body turned by roll, pitch, yaw. */
static void to_body(const double angle[3], const double world[3], double body[3])
{
    const double cr = cos(angle[0]), sr = sin(angle[0]);
    const double cp = cos(angle[1]), sp = sin(angle[1]);
    const double cy = cos(angle[2]), sy = sin(angle[2]);
    const double x = cy * world[0] + sy * world[1];
    const double y = -sy * world[0] + cy * world[1];
    const double px = cp * x - sp * world[2];
    const double pz = sp * x + cp * world[2];
    body[0] = px;
    body[1] = cr * y + sr * pz;
    body[2] = -sr * y + cr * pz;
}

static void imu_row(uint64_t seed, double t_s, double imu[9])
{
    double angle[3], rate[3], accel[3];
    for (uint64_t i = 0; i < 3; i++) {
        double turn[3], shift[3];
        axis(seed, i, t_s, turn);
        axis(seed, 3 + i, t_s, shift);
        angle[i] = 0.4 * turn[0];
        rate[i] = 0.4 * turn[1];
        accel[i] = 0.02 * shift[2];
    }
    accel[2] += GRAVITY_M_S2;
    to_body(angle, accel, imu);
    /* Euler rates to body rates. */
    const double cr = cos(angle[0]), sr = sin(angle[0]), cp = cos(angle[1]), sp = sin(angle[1]);
    imu[3] = rate[0] - rate[2] * sp;
    imu[4] = rate[1] * cr + rate[2] * sr * cp;
    imu[5] = -rate[1] * sr + rate[2] * cr * cp;
    const double field_ut[3] = {20.0, 0.0, -43.0};
    to_body(angle, field_ut, imu + 6);
}

static double smooth_step(double x)
{
    x = x < 0.0 ? 0.0 : x > 1.0 ? 1.0 : x;
    return x * x * (3.0 - 2.0 * x);
}

/* How firmly the hand grips, 0 to 1: rise, hold with a slow tremor, release; each grasp differs. */
static double grip(uint64_t seed, double t_s)
{
    const uint64_t grasp = (uint64_t)(t_s / GRASP_PERIOD_S);
    const double into_s = t_s - (double)grasp * GRASP_PERIOD_S;
    const double begin_s = 0.3 + 0.4 * fixed(seed, 3, grasp);
    const double hold_s = 1.5 + 1.0 * fixed(seed, 4, grasp);
    const double firm = 0.4 + 0.6 * fixed(seed, 5, grasp);
    const double closed = smooth_step((into_s - begin_s) / 0.15);
    const double on = closed - smooth_step((into_s - begin_s - hold_s) / 0.25);
    return firm * on * (1.0 + 0.03 * sin(2.0 * M_PI * 8.0 * t_s));
}

void model_row(const ec_stream *stream, uint64_t seed, uint64_t index, double *values)
{
    const double t_s = (double)index * 1000.0 / stream->rate_mhz;
    uint64_t state = random_mix(seed + stream->kind) ^ index << 8;
    double imu[9] = {0};
    double held = 0.0;
    if (stream->kind == EC_IMU)
        imu_row(seed, t_s, imu);
    else if (stream->kind == EC_FORCE || stream->kind == EC_TACTILE)
        held = grip(seed, t_s);
    static const double IMU_NOISE[3] = {0.02, 0.002, 0.3};
    for (uint8_t c = 0; c < stream->n_channels; c++) {
        const double weight = fixed(seed, 6, c);
        double slow[3];
        switch (stream->kind) {
        case EC_IMU: values[c] = imu[c % 9] + IMU_NOISE[c % 9 / 3] * noise(&state); break;
        case EC_FORCE: values[c] = 12.0 * held * weight + 0.01 * noise(&state); break;
        case EC_TACTILE: values[c] = 600.0 * held * (weight - 0.5) + 2.0 * noise(&state); break;
        default:
            axis(seed, 16 + c, t_s, slow);
            values[c] = 10.0 * slow[0] + 0.01 * noise(&state);
            break;
        }
    }
}
