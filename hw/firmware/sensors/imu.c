#include "imu.h"

#include <string.h>

#define READ 0x80u
#define PACKETS_AT_ONCE 8u
#define BURST_BYTES (1u + PACKETS_AT_ONCE * EC_IMU_PACKET_MAX)

#define RETRY_US 1000000u
#define NO_EDGE_US 100000u  /* without a sample for so long, it is set up anew */
#define READ_EVERY_US 4000u
#define ALIGN_WITHIN_US 300u
#define PERIOD_US 1000u
#define UNEQUAL_READS 3u

void ec_imu_init(ec_imu *imu, const ec_imu_chip *chip, const ec_spi *spi)
{
    memset(imu, 0, sizeof *imu);
    imu->chip = chip;
    imu->spi = spi;
}

void ec_imu_edge(ec_imu *imu, uint32_t t_us)
{
    const uint32_t put = imu->edges_put;
    imu->edges[put % EC_IMU_EDGES] = t_us;
    imu->edges_put = put + 1;
}

static void fail(ec_imu *imu, uint64_t now_us, const char *why)
{
    imu->state = EC_IMU_FAULT;
    imu->realigning = false; /* a fault is told of as such; what it did not give has no number */
    imu->fault = why;
    imu->due_us = now_us + RETRY_US;
}

static void go_on(ec_imu *imu, ec_imu_state state, uint64_t due_us)
{
    imu->state = state;
    imu->fault = NULL;
    imu->due_us = due_us;
}

static bool read_register(const ec_spi *spi, uint8_t address, uint8_t *value)
{
    const uint8_t out[2] = {(uint8_t)(address | READ), 0};
    uint8_t in[2];
    if (!spi->transfer(spi->ctx, out, in, sizeof out))
        return false;
    *value = in[1];
    return true;
}

static bool write_all(const ec_imu *imu, ec_imu_writes writes)
{
    for (uint8_t i = 0; i < writes.n; i++)
        if (!imu->spi->transfer(imu->spi->ctx, writes.writes[i], NULL, 2))
            return false;
    return true;
}

const ec_imu_chip *ec_imu_find(const ec_spi *spi, const ec_imu_chip *const *chips, uint8_t n)
{
    for (uint8_t i = 0; i < n; i++) {
        uint8_t who = 0;
        if (read_register(spi, chips[i]->who_register, &who) && who == chips[i]->who)
            return chips[i];
    }
    return chips[0];
}

static void set_up(ec_imu *imu, uint64_t now_us)
{
    const ec_imu_chip *chip = imu->chip;
    if (!read_register(imu->spi, chip->who_register, &imu->who_am_i)) {
        fail(imu, now_us, "SPI does not answer");
        return;
    }
    if (imu->who_am_i != chip->who) {
        fail(imu, now_us, imu->who_am_i == 0x00 || imu->who_am_i == 0xFF
                              ? "no sensor: WHO_AM_I reads as an open line"
                              : chip->another);
        return;
    }
    for (uint8_t i = 0; i < chip->setup.n; i++) {
        const ec_imu_writes one = {chip->setup.writes + i, 1};
        uint8_t read_back = 0;
        if (!write_all(imu, one) || !read_register(imu->spi, one.writes[0][0], &read_back) ||
            read_back != one.writes[0][1]) {
            fail(imu, now_us, "the sensor does not keep its settings");
            return;
        }
    }
    go_on(imu, EC_IMU_STARTING, now_us + chip->start_us);
}

/* Extend a 32-bit counter value to the 64-bit one that is nearest below now. */
static uint64_t extend(uint64_t now_us, uint32_t t_us)
{
    return now_us - (uint32_t)((uint32_t)now_us - t_us);
}

/* The FIFO was emptied right after this edge: with it went all samples since the last row. */
static void aligned(ec_imu *imu, uint64_t now_us, uint32_t edge, const ec_imu_sink *sink)
{
    const uint64_t edge_us = extend(now_us, edge);
    if (imu->realigning)
        sink->lost(sink->ctx, imu->last_us + PERIOD_US,
                   (uint32_t)((edge_us - imu->last_us + PERIOD_US / 2) / PERIOD_US));
    imu->realigning = false;
    imu->has_stamp = false;
    imu->unequal = 0;
    imu->last_us = edge_us;
    go_on(imu, EC_IMU_RUNNING, now_us + READ_EVERY_US);
}

static void align(ec_imu *imu, uint64_t now_us, const ec_imu_sink *sink)
{
    const uint32_t put = imu->edges_put;
    const uint32_t edge = imu->edges[(put - 1) % EC_IMU_EDGES];
    if (put != imu->edges_taken && (uint32_t)now_us - edge < ALIGN_WITHIN_US) {
        if (!write_all(imu, imu->chip->flush)) {
            fail(imu, now_us, "SPI does not answer");
            return;
        }
        if (imu->edges_put == put) {
            imu->edges_taken = put;
            aligned(imu, now_us, edge, sink);
            return;
        }
    }
    if (now_us > imu->patience_us)
        fail(imu, now_us, "the sensor's interrupt is silent: check its INT1 wire");
    else
        imu->due_us = now_us + ALIGN_WITHIN_US / 2;
}

static void begin_aligning(ec_imu *imu, uint64_t now_us)
{
    imu->edges_taken = imu->edges_put;
    imu->patience_us = now_us + NO_EDGE_US;
    go_on(imu, EC_IMU_ALIGNING, now_us);
}

/* The sensor's own stamps must go up by one period, ± half of one. */
static bool follows(ec_imu *imu, uint32_t stamp)
{
    const ec_imu_chip *chip = imu->chip;
    const uint32_t step = (stamp - imu->stamp) & chip->stamp_mask;
    const bool good =
        !imu->has_stamp || (step > chip->stamp_step / 2 && step < chip->stamp_step + chip->stamp_step / 2);
    imu->stamp = stamp;
    imu->has_stamp = true;
    return good;
}

static bool hand_over(ec_imu *imu, uint64_t now_us, const uint8_t *packet, const ec_imu_sink *sink)
{
    uint8_t row[EC_IMU_ROW_BYTES];
    uint32_t stamp = 0;
    if (!imu->chip->unpack(packet, row, &stamp) || !follows(imu, stamp))
        return false;
    const uint64_t t_us = extend(now_us, imu->edges[imu->edges_taken % EC_IMU_EDGES]);
    imu->edges_taken++;
    imu->last_us = t_us;
    sink->row(sink->ctx, t_us, row);
    return true;
}

/* Edges and packets do not belong together any more; what that costs is known once they do again. */
static void realign(ec_imu *imu, uint64_t now_us)
{
    imu->realigned++;
    imu->realigning = true;
    begin_aligning(imu, now_us);
}

static void read_fifo(ec_imu *imu, uint64_t now_us, const ec_imu_sink *sink)
{
    const ec_imu_chip *chip = imu->chip;
    const uint8_t ask[3] = {(uint8_t)(chip->count_register | READ), 0, 0};
    uint8_t count[3];
    if (!imu->spi->transfer(imu->spi->ctx, ask, count, sizeof ask)) {
        fail(imu, now_us, "SPI does not answer");
        return;
    }
    const uint32_t packets = chip->packets(count + 1);
    const uint32_t edges = imu->edges_put - imu->edges_taken;
    /* One may have come between the interrupt and the count. */
    if (edges > EC_IMU_EDGES || packets > edges + 1 || edges > packets + 1) {
        realign(imu, now_us);
        return;
    }
    /* The first packet has none before it to be compared with: here the counts must agree, or every row would bear
     * its neighbour's time. If a sample came just now, they will the next time. */
    if (!imu->has_stamp && packets != edges) {
        if (++imu->unequal > UNEQUAL_READS)
            realign(imu, now_us);
        else
            imu->due_us = now_us + ALIGN_WITHIN_US / 2;
        return;
    }
    uint32_t left = packets < edges ? packets : edges;
    while (left > 0) {
        const uint32_t n = left < PACKETS_AT_ONCE ? left : PACKETS_AT_ONCE;
        uint8_t out[BURST_BYTES] = {(uint8_t)(chip->fifo_register | READ)};
        uint8_t in[BURST_BYTES];
        if (!imu->spi->transfer(imu->spi->ctx, out, in, 1 + n * chip->packet_bytes)) {
            fail(imu, now_us, "SPI does not answer");
            return;
        }
        for (uint32_t i = 0; i < n; i++) {
            if (!hand_over(imu, now_us, in + 1 + i * chip->packet_bytes, sink)) {
                realign(imu, now_us);
                return;
            }
        }
        left -= n;
    }
    if (now_us > imu->last_us + NO_EDGE_US)
        fail(imu, now_us, "the sensor gives no samples any more");
    else
        imu->due_us = now_us + READ_EVERY_US;
}

void ec_imu_step(ec_imu *imu, uint64_t now_us, const ec_imu_sink *sink)
{
    if (now_us < imu->due_us)
        return;
    switch (imu->state) {
    case EC_IMU_FAULT:
    case EC_IMU_RESET:
        if (write_all(imu, imu->chip->reset))
            imu->state = EC_IMU_AWAKENING; /* the fault is forgotten once it has come up */
        else
            fail(imu, now_us, "SPI does not answer");
        imu->due_us = now_us + (imu->state == EC_IMU_AWAKENING ? imu->chip->reset_us : RETRY_US);
        break;
    case EC_IMU_AWAKENING: set_up(imu, now_us); break;
    case EC_IMU_STARTING: begin_aligning(imu, now_us); break;
    case EC_IMU_ALIGNING: align(imu, now_us, sink); break;
    case EC_IMU_RUNNING: read_fifo(imu, now_us, sink); break;
    }
}
