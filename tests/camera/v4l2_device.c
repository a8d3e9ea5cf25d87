/* A V4L2 capture device for tests, underneath everything: LD_PRELOAD it, and an ordinary file answers the
 * ioctls of a USB camera. Frames come when they are due, in memory that the reader maps, with the kernel's
 * kind of time stamps. Only what the kernel itself would do is done here.
 *
 *   V4L2_DEVICE  path of the file
 *   V4L2_MODES   "MJPG 640x480 30 15;MJPG 1280x720 30;YUYV 640x480 30" (fourcc, size, rates)
 *   V4L2_FRAMES  file of frames, each a 32-bit length and its bytes, played round and round
 *   V4L2_FAULTS  "miss=20,21 cut=30 error=31 freeze=40 unplug=50" (numbers of frames), "eacces", "output",
 *                "mplane", "grid" (sizes on a grid, no list of rates); after `unplug` the file is gone
 *   V4L2_SET     file to which each control that is set is added: "id value"
 *   V4L2_ONCE    faults with a number happen only while this file does not exist; makes it
 *
 * A stream holds a lock on the file: a second reader is told EBUSY, as by a driver.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BUFFERS = 4, FDS = 1024, MODES = 16, RATES = 4 };

struct mode { unsigned fourcc, width, height, rates[RATES], n_rates; };

struct device {
    int open, lock, streaming, n_buffers, queued[BUFFERS], n_queued;
    unsigned fourcc, width, height, rate;
    size_t size;
    unsigned char *memory;
    long long start_ns;
    unsigned frame;
};

static struct device devices[FDS];

static int real_open(const char *path, int flags, mode_t mode) {
    static int (*next)(const char *, int, ...);
    if (!next) next = dlsym(RTLD_NEXT, "open64");
    return next(path, flags, mode);
}

static int refuse(int code) {
    errno = code;
    return -1;
}

static const char *setting(const char *name) {
    const char *found = getenv(name);
    return found ? found : "";
}

static int has_fault(const char *name, int number) {
    const char *at = strstr(setting("V4L2_FAULTS"), name);
    if (!at) return 0;
    if (number < 0) return 1;
    const char *once = getenv("V4L2_ONCE");
    char mark[32];
    snprintf(mark, sizeof mark, "%s=", name);
    at = strstr(setting("V4L2_FAULTS"), mark);
    if (!at || (once && access(once, F_OK) == 0)) return 0;
    for (at += strlen(mark); *at >= '0' && *at <= '9';) {
        char *end;
        if (strtol(at, &end, 10) == number) return 1;
        at = *end == ',' ? end + 1 : end;
    }
    return 0;
}

static void once(void) {
    const char *path = getenv("V4L2_ONCE");
    if (path) close(real_open(path, O_CREAT | O_WRONLY, 0600));
}

static int modes(struct mode *out) {
    char text[1024], *rest, *entry;
    snprintf(text, sizeof text, "%s", setting("V4L2_MODES"));
    int n = 0;
    for (entry = strtok_r(text, ";", &rest); entry && n < MODES; entry = strtok_r(NULL, ";", &rest), n++) {
        char code[5] = "";
        int used = 0;
        struct mode *m = &out[n];
        memset(m, 0, sizeof *m);
        sscanf(entry, " %4s %ux%u%n", code, &m->width, &m->height, &used);
        m->fourcc = v4l2_fourcc(code[0], code[1], code[2], code[3]);
        for (const char *at = entry + used; m->n_rates < RATES && sscanf(at, " %u%n", &m->rates[m->n_rates], &used) == 1;
             at += used)
            m->n_rates++;
    }
    return n;
}

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void sleep_until(long long t_ns) {
    struct timespec t = {t_ns / 1000000000LL, t_ns % 1000000000LL};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

static size_t read_frame(unsigned number, unsigned char *out, size_t room) {
    static unsigned char *all;
    static size_t length;
    if (!all) {
        int fd = real_open(setting("V4L2_FRAMES"), O_RDONLY, 0);
        struct stat about;
        fstat(fd, &about);
        length = about.st_size;
        all = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
        close(fd);
    }
    unsigned count = 0, size;
    for (size_t at = 0; at + 4 <= length; at += 4 + size, count++) memcpy(&size, all + at, 4);
    size_t at = 0;
    for (unsigned k = number % count; k; k--) {
        memcpy(&size, all + at, 4);
        at += 4 + size;
    }
    memcpy(&size, all + at, 4);
    size = size < room ? size : room;
    memcpy(out, all + at + 4, size);
    return size;
}

static void fill_format(struct device *d, struct v4l2_format *f) {
    f->fmt.pix.width = d->width;
    f->fmt.pix.height = d->height;
    f->fmt.pix.pixelformat = d->fourcc;
    f->fmt.pix.field = V4L2_FIELD_NONE;
    f->fmt.pix.bytesperline = d->fourcc == V4L2_PIX_FMT_YUYV ? 2 * d->width : 0;
    f->fmt.pix.sizeimage = 2 * d->width * d->height;
}

static int set_format(int fd, struct device *d, struct v4l2_format *f) {
    int lock = real_open(setting("V4L2_DEVICE"), O_RDONLY | O_CLOEXEC, 0);
    int busy = lock < 0 || flock(lock, LOCK_EX | LOCK_NB);
    close(lock);
    if (busy) return refuse(EBUSY);
    struct mode known[MODES];
    int n = modes(known);
    d->width = known[0].width, d->height = known[0].height, d->fourcc = known[0].fourcc; /* drivers adjust */
    for (int k = 0; k < n; k++)
        if (known[k].fourcc == f->fmt.pix.pixelformat && known[k].width == f->fmt.pix.width &&
            known[k].height == f->fmt.pix.height)
            d->width = known[k].width, d->height = known[k].height, d->fourcc = known[k].fourcc;
    (void)fd;
    fill_format(d, f);
    return 0;
}

static int request_buffers(int fd, struct device *d, struct v4l2_requestbuffers *r) {
    if (r->count && d->lock < 0) {
        d->lock = real_open(setting("V4L2_DEVICE"), O_RDONLY | O_CLOEXEC, 0);
        if (flock(d->lock, LOCK_EX | LOCK_NB)) return refuse(EBUSY);
    }
    r->count = r->count < BUFFERS ? r->count : BUFFERS;
    d->n_buffers = r->count;
    d->size = (2 * d->width * d->height + 4095) & ~4095UL;
    if (!r->count) return 0;
    if (ftruncate(fd, d->size * r->count)) return -1;
    d->memory = mmap(NULL, d->size * r->count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return 0;
}

static int dequeue(struct device *d, struct v4l2_buffer *b) {
    for (;; d->frame++) {
        long long due_ns = d->start_ns + (d->frame + 1) * 1000000000LL / d->rate;
        while (has_fault("freeze", d->frame)) {
            once();
            pause();
        }
        if (has_fault("unplug", d->frame)) {
            once();
            unlink(setting("V4L2_DEVICE"));
            return refuse(ENODEV);
        }
        if (has_fault("miss", d->frame)) continue;
        if (due_ns < now_ns() - 200000000LL) continue; /* nobody gave a buffer in time */
        sleep_until(due_ns);
        if (!d->n_queued) continue;
        b->index = d->queued[0];
        memmove(d->queued, d->queued + 1, --d->n_queued * sizeof *d->queued);
        b->bytesused = read_frame(d->frame, d->memory + b->index * d->size, d->size);
        if (has_fault("cut", d->frame)) b->bytesused /= 2;
        b->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC | V4L2_BUF_FLAG_DONE;
        if (has_fault("error", d->frame)) b->flags |= V4L2_BUF_FLAG_ERROR;
        b->field = V4L2_FIELD_NONE;
        b->memory = V4L2_MEMORY_MMAP;
        b->length = d->size;
        b->m.offset = b->index * d->size;
        b->timestamp.tv_sec = due_ns / 1000000000LL;
        b->timestamp.tv_usec = due_ns % 1000000000LL / 1000;
        b->sequence = d->frame++;
        return 0;
    }
}

static int answer(int fd, struct device *d, unsigned long request, void *arg) {
    struct mode known[MODES];
    int n = modes(known), seen = 0;
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *c = arg;
        memset(c, 0, sizeof *c);
        strcpy((char *)c->driver, "uvcvideo");
        strcpy((char *)c->card, "Test Camera");
        strcpy((char *)c->bus_info, "usb-test-1");
        c->device_caps = V4L2_CAP_STREAMING | (has_fault("output", -1)   ? V4L2_CAP_VIDEO_OUTPUT
                                               : has_fault("mplane", -1) ? V4L2_CAP_VIDEO_CAPTURE_MPLANE
                                                                         : V4L2_CAP_VIDEO_CAPTURE);
        c->capabilities = c->device_caps | V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_ENUM_FMT: {
        struct v4l2_fmtdesc *f = arg;
        for (int k = 0; k < n; k++) {
            int first = 1;
            for (int j = 0; j < k; j++) first &= known[j].fourcc != known[k].fourcc;
            if (first && seen++ == (int)f->index) return f->pixelformat = known[k].fourcc, 0;
        }
        return refuse(EINVAL);
    }
    case VIDIOC_ENUM_FRAMESIZES: {
        struct v4l2_frmsizeenum *s = arg;
        if (has_fault("grid", -1)) {
            if (s->index) return refuse(EINVAL);
            s->type = V4L2_FRMSIZE_TYPE_STEPWISE;
            s->stepwise = (struct v4l2_frmsize_stepwise){160, 1280, 16, 120, 720, 8};
            return 0;
        }
        for (int k = 0; k < n; k++)
            if (known[k].fourcc == s->pixel_format && seen++ == (int)s->index) {
                s->type = V4L2_FRMSIZE_TYPE_DISCRETE;
                s->discrete.width = known[k].width, s->discrete.height = known[k].height;
                return 0;
            }
        return refuse(EINVAL);
    }
    case VIDIOC_ENUM_FRAMEINTERVALS: {
        struct v4l2_frmivalenum *s = arg;
        if (has_fault("grid", -1)) return refuse(EINVAL);
        for (int k = 0; k < n; k++)
            if (known[k].fourcc == s->pixel_format && known[k].width == s->width && known[k].height == s->height &&
                s->index < known[k].n_rates) {
                s->type = V4L2_FRMIVAL_TYPE_DISCRETE;
                s->discrete.numerator = 1, s->discrete.denominator = known[k].rates[s->index];
                return 0;
            }
        return refuse(EINVAL);
    }
    case VIDIOC_G_INPUT:
        *(int *)arg = 0;
        return 0;
    case VIDIOC_ENUMINPUT: {
        struct v4l2_input *i = arg;
        if (i->index) return refuse(EINVAL);
        memset(i, 0, sizeof *i);
        i->type = V4L2_INPUT_TYPE_CAMERA;
        return 0;
    }
    case VIDIOC_G_FMT:
        fill_format(d, arg);
        return 0;
    case VIDIOC_S_FMT:
        return set_format(fd, d, arg);
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
        struct v4l2_streamparm *p = arg;
        struct v4l2_fract *f = &p->parm.capture.timeperframe;
        if (request == VIDIOC_S_PARM && f->numerator) d->rate = f->denominator / f->numerator;
        p->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        f->numerator = 1, f->denominator = d->rate;
        return 0;
    }
    case VIDIOC_REQBUFS:
        return request_buffers(fd, d, arg);
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *b = arg;
        if ((int)b->index >= d->n_buffers) return refuse(EINVAL);
        b->length = d->size, b->m.offset = b->index * d->size, b->flags = 0;
        return 0;
    }
    case VIDIOC_QBUF:
        d->queued[d->n_queued++] = ((struct v4l2_buffer *)arg)->index;
        return 0;
    case VIDIOC_DQBUF:
        return dequeue(d, arg);
    case VIDIOC_STREAMON:
        d->start_ns = now_ns(), d->frame = 0, d->streaming = 1;
        return 0;
    case VIDIOC_STREAMOFF:
        d->streaming = d->n_queued = 0;
        return 0;
    case VIDIOC_S_CTRL: {
        struct v4l2_control *c = arg;
        if (!*setting("V4L2_SET")) return refuse(EINVAL);
        FILE *file = fopen(setting("V4L2_SET"), "a");
        fprintf(file, "%x %d\n", c->id, c->value);
        return fclose(file);
    }
    }
    return refuse(ENOTTY);
}

static int is_device(const char *path) {
    return *setting("V4L2_DEVICE") && !strcmp(path, setting("V4L2_DEVICE")) && access(path, F_OK) == 0;
}

static int open_either(const char *path, int flags, mode_t mode) {
    if (!is_device(path)) return real_open(path, flags, mode);
    if (has_fault("eacces", -1)) return refuse(EACCES);
    int fd = memfd_create("v4l2", MFD_CLOEXEC);
    if (fd < 0 || fd >= FDS) return refuse(EMFILE);
    memset(&devices[fd], 0, sizeof devices[fd]);
    devices[fd].open = 1, devices[fd].lock = -1, devices[fd].rate = 30;
    return fd;
}

#define OPENS(name)                                      \
    int name(const char *path, int flags, ...) {         \
        va_list more;                                    \
        va_start(more, flags);                           \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                    \
        return open_either(path, flags, mode);           \
    }
OPENS(open)
OPENS(open64)

int __open_2(const char *path, int flags) { return open_either(path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_either(path, flags, 0); }

int ioctl(int fd, unsigned long request, ...) {
    static int (*next)(int, unsigned long, void *);
    va_list more;
    va_start(more, request);
    void *arg = va_arg(more, void *);
    va_end(more);
    if (!next) next = dlsym(RTLD_NEXT, "ioctl");
    if (fd < 0 || fd >= FDS || !devices[fd].open) return next(fd, request, arg);
    return answer(fd, &devices[fd], request & 0xffffffffUL, arg); /* some callers sign-extend it */
}

int close(int fd) {
    static int (*next)(int);
    if (!next) next = dlsym(RTLD_NEXT, "close");
    if (fd >= 0 && fd < FDS && devices[fd].open) {
        struct device *d = &devices[fd];
        if (d->memory) munmap(d->memory, d->size * d->n_buffers);
        if (d->lock >= 0) next(d->lock);
        d->open = 0;
    }
    return next(fd);
}
