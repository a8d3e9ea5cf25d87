/* The sensor drivers on buses that fail at random: sensor_fuzz SEED STEPS.
 *
 * Whatever the bus answers, a driver comes back, wants to be called again within its retry time, and gives rows in
 * order of time. Built with sanitizers by test_sensors.py. */
#include <stdio.h>
#include <stdlib.h>

#include "icm42688.h"
#include "lsm6dsv16x.h"
#include "mlx90393.h"

#define LONGEST_WAIT_US 1100000u
#define ABSENT 0x0E /* nothing answers at this address */

static uint64_t state;
static uint64_t now_us;
static uint64_t transfers;
static uint64_t rows;
static uint64_t lost;
static uint64_t last_row_us;

static uint32_t draw(uint32_t n)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33) % n;
}

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "violated at %llu us: %s\n", (unsigned long long)now_us, what);
    exit(1);
}

/* Mostly plausible answers, so that the drivers get far; sometimes noise or nothing. */
static bool spi_transfer(void *ctx, const uint8_t *out, uint8_t *in, size_t n)
{
    const ec_imu_chip *chip = ctx;
    static uint8_t registers[128];
    static uint32_t stamp;
    const bool tagged = chip == &EC_LSM6DSV16X;
    transfers++;
    now_us += n;
    const uint8_t address = out[0] & 0x7F;
    if (draw(400) == 0)
        return false;
    if ((out[0] & 0x80) == 0 && n == 2)
        registers[address] = out[1];
    for (size_t i = 0; in != NULL && i < n; i++)
        in[i] = draw(1000) == 0 ? (uint8_t)draw(256) : registers[(address + i - 1) & 127];
    if (in == NULL)
        return true;
    if (address == chip->who_register && draw(20) != 0)
        in[1] = chip->who;
    if (address == chip->count_register) {
        const uint8_t packets = (uint8_t)draw(7);
        in[tagged ? 2 : 1] = draw(100) == 0 ? (uint8_t)draw(256) : 0;
        in[tagged ? 1 : 2] = tagged ? (uint8_t)(3 * packets + draw(3)) : packets;
    }
    for (size_t at = 1; address == chip->fifo_register && at + chip->packet_bytes <= n; at += chip->packet_bytes) {
        stamp += chip->stamp_step + draw(3) - 1;
        if (!tagged) {
            in[at] = draw(300) == 0 ? (uint8_t)draw(256) : 0x68;
            in[at + 14] = (uint8_t)(stamp >> 8);
            in[at + 15] = (uint8_t)stamp;
            continue;
        }
        static const uint8_t TAGS[3] = {0x04, 0x01, 0x02};
        const uint8_t count = (uint8_t)(draw(4) << 1);
        for (size_t w = 0; w < 3; w++)
            in[at + 7 * w] = draw(900) == 0 ? (uint8_t)draw(256) : (uint8_t)(TAGS[w] << 3 | count);
        for (size_t k = 0; k < 4; k++)
            in[at + 1 + k] = (uint8_t)(stamp >> 8 * k);
    }
    return true;
}

static ec_i2c_result i2c_transfer(void *ctx, uint8_t address, const uint8_t *out, size_t n_out, uint8_t *in,
                                  size_t n_in)
{
    (void)ctx;
    static uint8_t registers[64][2];
    transfers++;
    now_us += 25 * (n_out + n_in);
    if (address == ABSENT)
        return EC_I2C_NO_ANSWER;
    if (draw(150) == 0) {
        now_us += 1000;
        return draw(2) == 0 ? EC_I2C_STUCK : EC_I2C_NO_ANSWER;
    }
    for (size_t i = 0; i < n_in; i++)
        in[i] = i == 0 && draw(100) != 0 ? 0 : (uint8_t)draw(256);
    if ((out[0] & 0xF0) == 0x60 && n_out == 4) {
        registers[out[3] >> 2 & 63][0] = out[1];
        registers[out[3] >> 2 & 63][1] = out[2];
    } else if ((out[0] & 0xF0) == 0x50 && n_out == 2 && n_in == 3 && draw(100) != 0) {
        in[1] = registers[out[1] >> 2 & 63][0];
        in[2] = registers[out[1] >> 2 & 63][1];
    }
    return EC_I2C_OK;
}

static void take_row(void *ctx, uint64_t t_us, const uint8_t *row)
{
    (void)ctx;
    (void)row;
    require(t_us <= now_us, "a row from the future");
    require(rows == 0 || t_us > last_row_us, "rows out of order");
    last_row_us = t_us;
    rows++;
}

static void take_lost(void *ctx, uint64_t t_us, uint32_t n)
{
    (void)ctx;
    (void)t_us;
    require(n > 0 && n < 5000, "an impossible number of lost rows");
    lost += n;
}

static uint64_t tell_now(void *ctx)
{
    (void)ctx;
    return now_us;
}

static void run_imu(const ec_imu_chip *chip, const char *name, uint32_t steps)
{
    const ec_spi spi = {(void *)(uintptr_t)chip, spi_transfer};
    static const ec_imu_sink SINK = {NULL, take_row, take_lost};
    ec_imu imu;
    uint64_t edge_us = now_us;
    rows = lost = 0;
    ec_imu_init(&imu, chip, &spi);
    for (uint32_t i = 0; i < steps; i++) {
        now_us += draw(8) == 0 ? draw(20000) : draw(1500);
        while (edge_us + 1000 <= now_us) {
            edge_us += 1000;
            if (now_us - edge_us < 100000 && draw(500) != 0)
                ec_imu_edge(&imu, (uint32_t)edge_us);
        }
        ec_imu_step(&imu, now_us, &SINK);
        require(imu.due_us <= now_us + LONGEST_WAIT_US, "the inertial sensor is left alone too long");
        require((imu.state == EC_IMU_FAULT) <= (imu.fault != NULL), "a fault without a reason");
    }
    printf("%s: %llu rows, %llu lost, %u times aligned anew\n", name, (unsigned long long)rows,
           (unsigned long long)lost, (unsigned)imu.realigned);
}

static void run_magnets(uint32_t steps)
{
    static const ec_i2c I2C = {NULL, i2c_transfer};
    static const uint8_t ADDRESSES[] = {0x0C, 0x0D, ABSENT};
    ec_mlx_group group;
    uint64_t last_us[3] = {0};
    rows = 0;
    ec_mlx90393_init(&group, &I2C, ADDRESSES, 3, 5000);
    for (uint32_t i = 0; i < steps; i++) {
        now_us += draw(1500);
        const uint64_t before = transfers;
        const int row = ec_mlx90393_step(&group, tell_now, NULL);
        if (row != EC_MLX90393_NO_ROW) {
            require(row >= 0 && row < 2, "a row of a sensor that is not there");
            require(group.sensors[row].t_us > last_us[row], "rows out of order");
            require(group.sensors[row].t_us < now_us, "a row from the future");
            last_us[row] = group.sensors[row].t_us;
            rows++;
        }
        require(transfers - before <= 2, "more than two transfers in one step");
        require(group.due_us <= now_us + LONGEST_WAIT_US, "the magnetometers are left alone too long");
        require(group.at <= group.n, "the turn of a sensor that is not there");
        for (int k = 0; k < 3; k++)
            require(group.sensors[k].ready || group.sensors[k].due_us <= now_us + LONGEST_WAIT_US,
                    "a sensor is not tried again");
    }
    require(group.sensors[2].fault != NULL, "a sensor that is not there has no fault");
    printf("magnets: %llu rows\n", (unsigned long long)rows);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    state = strtoull(argv[1], NULL, 10);
    const uint32_t steps = (uint32_t)strtoul(argv[2], NULL, 10);
    now_us = UINT64_C(1) << (20 + draw(13)); /* also beyond 32 bits */
    run_imu(&EC_ICM42688, "icm42688", steps);
    run_imu(&EC_LSM6DSV16X, "lsm6dsv16x", steps);
    run_magnets(steps);
    return 0;
}
