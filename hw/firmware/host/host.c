#include "host.h"

#include <string.h>
#include <unistd.h>

#include "random.h"
#include "truth.h"

/* Between the last bounce of one press and the next press: more than the debouncing. */
#define BUTTON_REST_NS 10000000
/* A process that was not run for longer than this has missed edges that a board would have seen. */
#define ASLEEP_NS 2000000
/* A FIFO is read so often, as on a board whose bus is shared. */
#define READ_EVERY_US 4000u

static uint32_t micros(void *ctx)
{
    const host *self = ctx;
    return (uint32_t)counter_at(&self->clock, raw_now_ns());
}

static uint32_t boot_id(void *ctx)
{
    host *self = ctx;
    return (uint32_t)random_next(&self->random);
}

static void transmit(void *ctx, const uint8_t *bytes, size_t n)
{
    host *self = ctx;
    line_transmit(&self->line, bytes, n, raw_now_ns());
}

static bool read_sensor(void *ctx, uint8_t stream, uint32_t index, uint64_t t_us, uint8_t *row)
{
    host *self = ctx;
    sensor *s = &self->opts.sensors[stream];
    const int64_t raw_ns = counter_raw_ns(&self->clock, t_us);
    if (raw_ns < s->silent_until_ns || !sensor_row(s, index, self->opts.loop, row))
        return false;
    if (self->truth != NULL) {
        const truth_record record = {stream, self->boot_no, index, raw_ns, (uint32_t)t_us, self->run};
        truth_write(self->truth, &record);
    }
    return true;
}

static bool alive(void *ctx, uint8_t stream)
{
    const host *self = ctx;
    return raw_now_ns() >= self->opts.sensors[stream].silent_until_ns;
}

static void sampling(void *ctx, bool on)
{
    host *self = ctx;
    for (uint8_t s = 0; on && s < self->opts.n_sensors; s++) {
        self->opts.sensors[s].own_tick = 0;
        self->opts.sensors[s].read_us = self->device.start_us + READ_EVERY_US;
    }
    if (on)
        self->run++;
    else if (self->truth != NULL)
        fflush(self->truth);
}

/* When a sensor with a clock of its own takes a row, by the board's counter. */
static uint64_t own_row_us(const host *self, uint8_t stream)
{
    const sensor *s = &self->opts.sensors[stream];
    const uint64_t ns = (s->own_tick + 1) * UINT64_C(1000000000000) / self->device.samplers[stream].rate_mhz;
    return self->device.start_us + (ns + (uint64_t)((int64_t)ns / 1000000000 * s->own_ppb) +
                                    (uint64_t)((int64_t)ns % 1000000000 * s->own_ppb / 1000000000)) / 1000u;
}

static void read_fifo(host *self, uint8_t stream, uint64_t now_us)
{
    sensor *s = &self->opts.sensors[stream];
    uint8_t row[EC_PAYLOAD_MAX];
    for (uint64_t t_us = own_row_us(self, stream); t_us <= now_us; t_us = own_row_us(self, stream)) {
        s->own_tick++;
        if (s->lose > 0) {
            s->lose--;
            ec_lose_rows(&self->device, stream, t_us, 1);
        } else if (read_sensor(self, stream, self->device.samplers[stream].produced, t_us, row)) {
            ec_give_row(&self->device, stream, t_us, row);
        }
    }
    s->read_us = now_us + READ_EVERY_US;
}

static void read_fifos(host *self)
{
    const uint64_t now_us = counter_at(&self->clock, raw_now_ns());
    for (uint8_t s = 0; self->device.sampling && s < self->opts.n_sensors; s++)
        if (self->opts.sensors[s].stream.given && now_us >= self->opts.sensors[s].read_us)
            read_fifo(self, s, now_us);
}

static bool tare(void *ctx, uint8_t stream)
{
    host *self = ctx;
    return sensor_tare(&self->opts.sensors[stream]);
}

static bool rate(void *ctx, uint8_t stream, uint32_t rate_mhz)
{
    (void)ctx;
    (void)stream;
    (void)rate_mhz;
    return true;
}

static void led(void *ctx, uint8_t red, uint8_t green, uint8_t blue)
{
    host *self = ctx;
    const uint8_t shown[3] = {red, green, blue};
    memcpy(self->led, shown, sizeof shown);
    if (self->truth != NULL) {
        const int64_t raw_ns = raw_now_ns();
        const uint32_t colour = (uint32_t)red << 16 | (uint32_t)green << 8 | blue;
        const truth_record record = {TRUTH_LIGHT, self->boot_no, colour, raw_ns,
                                     (uint32_t)counter_at(&self->clock, raw_ns), self->run};
        truth_write(self->truth, &record);
    }
}

static void reset(void *ctx)
{
    host *self = ctx;
    self->reset_asked = true;
}

const char *host_boot(host *self, bool first)
{
    const ec_hal hal = {self, micros, boot_id, transmit, read_sensor, alive, sampling, rate, tare, led, reset};
    if (!first)
        self->boot_no++;
    self->run = 0;
    self->reset_asked = false;
    self->n_edges = 0;
    self->line.frame = NULL;
    memset(self->led, 0, sizeof self->led);
    for (uint8_t s = 0; s < self->opts.n_sensors; s++)
        self->streams[s] = self->opts.sensors[s].stream;
    self->clock.origin_ns = raw_now_ns();
    return ec_init(&self->device, &hal, self->streams, self->opts.n_sensors, self->opts.serial_number);
}

static void replug(host *self)
{
    if (self->line.unplugged_until_ns == 0 || raw_now_ns() < self->line.unplugged_until_ns)
        return;
    if (!line_plug(&self->line)) {
        perror("edgecap-fw-host: cannot open a pty again");
        self->quit = true;
        return;
    }
    if (self->power_lost)
        host_boot(self, false);
    self->power_lost = false;
    printf("port %s\n", self->line.path);
}

/* A movement that has begun goes on; the next one begins once the device has seen this one, however seldom we are
 * run, else a whole press would pass unseen. */
static bool may_move(const host *self)
{
    return self->n_edges > 0 && (self->edges[0].movement == self->moving || !self->device.button.unsettled);
}

/* The finger waits as long as we did: a press of 100 ms must not become one of 5, which is a bounce. */
static void put_off(host *self, int64_t by_ns)
{
    for (uint32_t k = 0; by_ns > ASLEEP_NS && k < self->n_edges; k++)
        if (self->edges[k].movement != self->moving)
            self->edges[k].raw_ns += by_ns;
}

static void move_contacts(host *self)
{
    while (may_move(self) && self->edges[0].raw_ns <= raw_now_ns()) {
        const edge next = self->edges[0];
        memmove(self->edges, self->edges + 1, --self->n_edges * sizeof *self->edges);
        ec_button_raw(&self->device, next.down);
        if (next.movement != self->moving) {
            self->moving = next.movement;
            put_off(self, raw_now_ns() - next.raw_ns);
        }
    }
}

void host_service(host *self)
{
    replug(self);
    move_contacts(self);
    if (self->power_lost)
        return;
    read_fifos(self);
    for (bool more = true; more;) {
        ec_poll(&self->device);
        if (self->reset_asked)
            host_boot(self, false);
        const int64_t now_ns = raw_now_ns();
        more = line_pump(&self->line, now_ns);
        if (more)
            ec_transmitted(&self->device, (uint32_t)counter_at(&self->clock, now_ns));
    }
    line_rest(&self->line);
}

int64_t host_due_ns(const host *self)
{
    int64_t due = INT64_MAX;
    if (!self->power_lost) {
        const uint64_t wake_us = ec_next_wake_us(&self->device);
        due = wake_us == UINT64_MAX ? INT64_MAX : counter_raw_ns(&self->clock, wake_us);
        const int64_t line_ns = line_due_ns(&self->line);
        due = line_ns < due ? line_ns : due;
        for (uint8_t s = 0; self->device.sampling && s < self->opts.n_sensors; s++) {
            if (!self->opts.sensors[s].stream.given)
                continue;
            const int64_t read_ns = counter_raw_ns(&self->clock, self->opts.sensors[s].read_us);
            due = read_ns < due ? read_ns : due;
        }
        if (may_move(self) && self->edges[0].raw_ns < due)
            due = self->edges[0].raw_ns;
    }
    if (self->line.unplugged_until_ns > 0 && self->line.unplugged_until_ns < due)
        due = self->line.unplugged_until_ns;
    return due;
}

void host_read_line(host *self)
{
    uint8_t bytes[4096];
    const ssize_t n = read(self->line.master, bytes, sizeof bytes);
    const uint32_t t_us = micros(self);
    for (ssize_t i = 0; i < n && !self->power_lost; i++)
        ec_receive(&self->device, bytes[i], t_us);
}

static void insert_edge(host *self, edge new)
{
    uint32_t at = self->n_edges++;
    for (; at > 0 && self->edges[at - 1].raw_ns > new.raw_ns; at--)
        self->edges[at] = self->edges[at - 1];
    self->edges[at] = new;
}

int64_t host_button_free_ns(const host *self)
{
    const int64_t now_ns = raw_now_ns();
    const int64_t free_ns = self->n_edges > 0 ? self->edges[self->n_edges - 1].raw_ns + BUTTON_REST_NS : 0;
    return free_ns > now_ns ? free_ns : now_ns;
}

bool host_move_button(host *self, bool down, int64_t raw_ns)
{
    /* Two bounces within 2 ms, as of a worn tactile switch. */
    static const int64_t AT_US[5] = {0, 300, 700, 1200, 1900};
    if (self->n_edges + 5 > HOST_EDGES)
        return false;
    self->movements++;
    for (uint32_t i = 0; i < 5; i++) {
        const int64_t shake_ns = i == 0 ? 0 : (int64_t)(random_next(&self->random) % 100000);
        insert_edge(self, (edge){raw_ns + AT_US[i] * 1000 + shake_ns, (i % 2 == 0) == down, self->movements});
    }
    return true;
}
