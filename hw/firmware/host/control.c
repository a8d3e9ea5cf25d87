#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

#define MAX_MS 3600000

static const char USAGE[] =
    "press MS, down, up, reset, stall MS, silence STREAM MS, lose STREAM N, garbage N, drop N, corrupt N, "
    "unplug MS [power], led, totals, quit";

/* The next word as a whole number from 0 to `top`; false if it is not one. */
static bool take_number(char **rest, long top, long *value)
{
    const char *word = strtok_r(NULL, " ", rest);
    if (word == NULL)
        return false;
    char *end = NULL;
    errno = 0;
    *value = strtol(word, &end, 10);
    return errno == 0 && *end == 0 && end != word && *value >= 0 && *value <= top;
}

static void press(host *self, long ms)
{
    const int64_t down_ns = host_button_free_ns(self);
    const int64_t up_ns = down_ns + ms * 1000000;
    if (host_move_button(self, true, down_ns) && host_move_button(self, false, up_ns))
        printf("ok down_ns=%lld up_ns=%lld\n", (long long)down_ns, (long long)up_ns);
    else
        puts("error too many presses at once");
}

static void move(host *self, bool down)
{
    const int64_t t_ns = host_button_free_ns(self);
    if (host_move_button(self, down, t_ns))
        printf("ok %s_ns=%lld\n", down ? "down" : "up", (long long)t_ns);
    else
        puts("error too many presses at once");
}

static void reset(host *self)
{
    host_boot(self, false);
    printf("ok boot_no=%u boot_id=%lu\n", self->boot_no, (unsigned long)self->device.boot_id);
}

static void silence(host *self, char **rest, int64_t now_ns)
{
    const char *name = strtok_r(NULL, " ", rest);
    long ms = 0;
    if (name == NULL || !take_number(rest, MAX_MS, &ms)) {
        puts("error silence STREAM MS");
        return;
    }
    for (uint8_t s = 0; s < self->opts.n_sensors; s++) {
        if (strcmp(self->opts.sensors[s].stream.name, name) == 0) {
            self->opts.sensors[s].silent_until_ns = now_ns + ms * 1000000;
            printf("ok until_ns=%lld\n", (long long)self->opts.sensors[s].silent_until_ns);
            return;
        }
    }
    printf("error no stream `%s`\n", name);
}

static void lose(host *self, char **rest)
{
    const char *name = strtok_r(NULL, " ", rest);
    long n = 0;
    if (name == NULL || !take_number(rest, 1000000, &n)) {
        puts("error lose STREAM N");
        return;
    }
    for (uint8_t s = 0; s < self->opts.n_sensors; s++) {
        if (self->opts.sensors[s].stream.given && strcmp(self->opts.sensors[s].stream.name, name) == 0) {
            self->opts.sensors[s].lose = (uint32_t)n;
            puts("ok");
            return;
        }
    }
    printf("error no stream `%s` with a clock of its own\n", name);
}

static void unplug(host *self, char **rest, int64_t now_ns)
{
    long ms = 0;
    if (!take_number(rest, MAX_MS, &ms)) {
        puts("error unplug MS [power]");
        return;
    }
    const char *power = strtok_r(NULL, " ", rest);
    self->power_lost = power != NULL && strcmp(power, "power") == 0;
    line_unplug(&self->line);
    self->line.unplugged_until_ns = now_ns + ms * 1000000 + 1;
    puts("ok");
}

static void totals(host *self)
{
    fputs("ok", stdout);
    for (uint8_t s = 0; s < self->opts.n_sensors; s++)
        printf(" %s=%lu", self->opts.sensors[s].stream.name,
               (unsigned long)self->device.samplers[s].produced);
    putchar('\n');
    if (self->truth != NULL)
        fflush(self->truth);
}

static void tell_light(const host *self)
{
    const ec_light *light = &self->device.light;
    printf("ok %u %u %u %u", light->rgb[0], light->rgb[1], light->rgb[2], light->pattern);
    if (light->has_rhythm)
        printf(" %u %u %u", light->on_ms, light->off_ms, light->flashes);
    printf(" shows %u %u %u\n", self->led[0], self->led[1], self->led[2]);
}

void control_obey(host *self, char *text)
{
    /* What was due before the command must not feel it. */
    host_service(self);
    const int64_t now_ns = raw_now_ns();
    char *rest = NULL;
    const char *word = strtok_r(text, " ", &rest);
    long n = 0;
    if (word == NULL) {
        printf("error a command is one of: %s\n", USAGE);
    } else if (strcmp(word, "press") == 0 && take_number(&rest, MAX_MS, &n)) {
        press(self, n);
    } else if (strcmp(word, "down") == 0 || strcmp(word, "up") == 0) {
        move(self, *word == 'd');
    } else if (strcmp(word, "reset") == 0) {
        reset(self);
    } else if (strcmp(word, "stall") == 0 && take_number(&rest, MAX_MS, &n)) {
        self->line.stalled_until_ns = now_ns + n * 1000000;
        puts("ok");
    } else if (strcmp(word, "silence") == 0) {
        silence(self, &rest, now_ns);
    } else if (strcmp(word, "lose") == 0) {
        lose(self, &rest);
    } else if (strcmp(word, "garbage") == 0 && take_number(&rest, 1000000, &n)) {
        line_garbage(&self->line, (uint32_t)n);
        puts("ok");
    } else if (strcmp(word, "drop") == 0 && take_number(&rest, 1000000, &n)) {
        self->line.drop = (uint32_t)n;
        puts("ok");
    } else if (strcmp(word, "corrupt") == 0 && take_number(&rest, 1000000, &n)) {
        self->line.corrupt = (uint32_t)n;
        puts("ok");
    } else if (strcmp(word, "unplug") == 0) {
        unplug(self, &rest, now_ns);
    } else if (strcmp(word, "led") == 0) {
        tell_light(self);
    } else if (strcmp(word, "totals") == 0) {
        totals(self);
    } else if (strcmp(word, "quit") == 0) {
        self->quit = true;
        puts("ok");
    } else {
        printf("error `%s` is unknown or lacks a number; a command is one of: %s\n", word, USAGE);
    }
}
