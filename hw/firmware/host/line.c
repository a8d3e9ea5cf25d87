#define _GNU_SOURCE
#include "line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "random.h"

/* A full-speed bulk endpoint moves at most 19 packets of 64 bytes in 1 ms. */
#define USB_BYTES_PER_MS 1216
#define RETRY_NS 1000000

static bool make_link(const line *self)
{
    char temporary[4096];
    if (self->link == NULL)
        return true;
    const int n = snprintf(temporary, sizeof temporary, "%s.new", self->link);
    if (n < 0 || (size_t)n >= sizeof temporary) {
        errno = ENAMETOOLONG;
        return false;
    }
    unlink(temporary);
    return symlink(self->path, temporary) == 0 && rename(temporary, self->link) == 0;
}

bool line_plug(line *self)
{
    self->master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (self->master < 0)
        return false;
    struct termios raw;
    if (grantpt(self->master) != 0 || unlockpt(self->master) != 0 ||
        ptsname_r(self->master, self->path, sizeof self->path) != 0)
        return false;
    self->slave = open(self->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (self->slave < 0 || tcgetattr(self->slave, &raw) != 0)
        return false;
    cfmakeraw(&raw);
    self->sent = 0;
    self->unplugged_until_ns = 0;
    return tcsetattr(self->slave, TCSANOW, &raw) == 0 && make_link(self);
}

void line_unplug(line *self)
{
    if (self->link != NULL)
        unlink(self->link);
    if (self->slave >= 0)
        close(self->slave);
    if (self->master >= 0)
        close(self->master);
    self->master = self->slave = -1;
}

void line_transmit(line *self, const uint8_t *bytes, size_t n, int64_t now_ns)
{
    self->frame = bytes;
    self->frame_bytes = n;
    self->sent = 0;
    if (self->corrupt > 0 && self->drop == 0) {
        self->corrupt--;
        memcpy(self->corrupted, bytes, n);
        const uint64_t at = random_next(&self->random) % (8 * (n - 1)); /* spares the delimiter */
        self->corrupted[at / 8] ^= (uint8_t)(1u << at % 8);
        self->frame = self->corrupted;
    }
    if (self->usb_frame_ns == 0)
        return;
    const int64_t slot = now_ns / self->usb_frame_ns;
    const size_t room = (size_t)(self->usb_frame_ns * USB_BYTES_PER_MS / 1000000);
    /* The host goes on polling within a USB frame while there is data. */
    if (self->slot == slot && self->slot_bytes > 0 && self->slot_bytes + n <= room)
        return;
    self->slot = slot + 1;
    self->slot_bytes = 0;
}

static bool finish(line *self)
{
    self->slot_bytes += self->frame_bytes;
    self->frame = NULL;
    return true;
}

bool line_pump(line *self, int64_t now_ns)
{
    if (line_due_ns(self) > now_ns)
        return false;
    if (self->drop > 0 && self->sent == 0) {
        self->drop--;
        return finish(self);
    }
    const ssize_t n = write(self->master, self->frame + self->sent, self->frame_bytes - self->sent);
    if (n > 0)
        self->sent += (size_t)n;
    if (self->sent == self->frame_bytes)
        return finish(self);
    self->retry_ns = now_ns + RETRY_NS;
    return false;
}

void line_rest(line *self)
{
    if (self->frame == NULL)
        self->slot_bytes = 0;
}

int64_t line_due_ns(const line *self)
{
    if (self->frame == NULL || self->master < 0)
        return INT64_MAX;
    int64_t due = self->retry_ns;
    if (self->stalled_until_ns > due)
        due = self->stalled_until_ns;
    if (self->usb_frame_ns > 0 && self->slot * self->usb_frame_ns > due)
        due = self->slot * self->usb_frame_ns;
    return due;
}

void line_garbage(line *self, uint32_t n)
{
    uint8_t bytes[256];
    while (n > 0 && self->master >= 0) {
        const uint32_t take = n < sizeof bytes ? n : (uint32_t)sizeof bytes;
        for (uint32_t i = 0; i < take; i++)
            bytes[i] = (uint8_t)(random_next(&self->random) >> 56);
        if (write(self->master, bytes, take) != (ssize_t)take)
            return; /* nobody reads: the line is full of it already */
        n -= take;
    }
}
