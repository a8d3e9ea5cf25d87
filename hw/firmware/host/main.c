#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "host.h"
#include "random.h"

#define COMMAND_MAX 256

static volatile sig_atomic_t told_to_stop;

static void on_signal(int number)
{
    (void)number;
    told_to_stop = 1;
}

typedef struct {
    char bytes[COMMAND_MAX];
    size_t used;
    bool too_long; /* the rest of the line is to be skipped */
} reader;

/* Take what stdin has; its end ends the process. */
static void read_commands(host *self, reader *input)
{
    const ssize_t n = read(STDIN_FILENO, input->bytes + input->used, sizeof input->bytes - input->used);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        self->quit = true;
    if (n <= 0)
        return;
    input->used += (size_t)n;
    char *end;
    while (!self->quit && (end = memchr(input->bytes, '\n', input->used)) != NULL) {
        *end = 0;
        if (input->too_long)
            puts("error command too long");
        else
            control_obey(self, input->bytes);
        input->too_long = false;
        const size_t taken = (size_t)(end + 1 - input->bytes);
        memmove(input->bytes, end + 1, input->used - taken);
        input->used -= taken;
    }
    if (input->used == sizeof input->bytes) {
        input->used = 0;
        input->too_long = true;
    }
}

static void run(host *self)
{
    reader input = {.used = 0};
    sigset_t none;
    sigemptyset(&none);
    while (!self->quit && !told_to_stop) {
        host_service(self);
        const int64_t due_ns = host_due_ns(self);
        const int64_t until_ns = due_ns - raw_now_ns();
        const int64_t wait_ns = until_ns > 0 ? until_ns : 0;
        const struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
        /* ppoll() ignores the -1 of an unplugged line. */
        struct pollfd fds[2] = {{STDIN_FILENO, POLLIN, 0}, {self->line.master, POLLIN, 0}};
        const int ready = ppoll(fds, 2, due_ns == INT64_MAX ? NULL : &wait, &none);
        if (ready <= 0)
            continue;
        if (fds[1].revents & POLLIN)
            host_read_line(self);
        if (fds[0].revents)
            read_commands(self, &input);
    }
}

static bool prepare(host *self)
{
    self->clock.start_us = self->opts.start_us;
    self->clock.skew_ppb = self->opts.skew_ppb;
    /* Boot ids differ between runs of one seed, as they do between power-ups of one board. */
    self->random = random_mix(self->opts.seed) ^ (uint64_t)raw_now_ns();
    self->line.random = random_mix(self->opts.seed + 1);
    self->line.link = self->opts.link;
    self->line.usb_frame_ns = self->opts.usb_frame_ns;
    self->line.master = self->line.slave = -1;
    if (self->opts.truth != NULL && (self->truth = fopen(self->opts.truth, "wb")) == NULL) {
        fprintf(stderr, "edgecap-fw-host: %s: %s\n", self->opts.truth, strerror(errno));
        return false;
    }
    const char *wrong = host_boot(self, true);
    if (wrong != NULL) {
        fprintf(stderr, "edgecap-fw-host: %s\n", wrong);
        return false;
    }
    if (!line_plug(&self->line)) {
        perror("edgecap-fw-host: cannot open a pty or its link");
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static host self;
    options_parse(&self.opts, argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);

    const struct sigaction stop = {.sa_handler = on_signal};
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGINT);
    sigprocmask(SIG_BLOCK, &held, NULL); /* delivered inside ppoll() only */
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    signal(SIGPIPE, SIG_IGN);
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    prctl(PR_SET_TIMERSLACK, 1UL);

    const bool ready = prepare(&self);
    if (ready) {
        printf("port %s\n", self.line.path);
        run(&self);
    }
    line_unplug(&self.line);
    int status = ready ? 0 : 2;
    if (self.truth != NULL && fclose(self.truth) != 0) {
        perror("edgecap-fw-host: truth file");
        status = 1;
    }
    options_free(&self.opts);
    return status;
}
