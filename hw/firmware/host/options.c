#define _DEFAULT_SOURCE
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/wire.h"
#include "npy.h"

static const char HELP[] =
    "edgecap-fw-host: the edgecap device firmware, running on this machine behind a pty.\n"
    "\n"
    "  --link PATH         symbolic link to the pty that the host program opens\n"
    "  --serial SN         serial number in HELLO (default host-0001)\n"
    "  --skew-ppm X        how much faster than CLOCK_MONOTONIC_RAW the counter runs\n"
    "  --start-us N        counter at power-up (default 0); 4294000000 wraps within a second\n"
    "  --stream SPEC       a stream, in order; see below\n"
    "  --replay-loop       start recordings again at their end (default)\n"
    "  --replay-once       sensors fall silent at the end of their recording\n"
    "  --truth FILE        write when each sample was really taken\n"
    "  --usb-frame-us N    bytes reach the host only on N us boundaries (default 0: at once)\n"
    "  --seed N            seed of the model and the faults (default 1)\n"
    "\n"
    "SPEC: name=N,kind=imu|force|tactile|magnetic|scalar,rate_hz=R,\n"
    "  [dtype=int16|int24|int32|float32,][lag_us=L,][own_ppm=P,] file=REC.npy or model=motion,channels=C;\n"
    "  own_ppm: the sensor samples by a clock of its own, so much slower than the board's, into a FIFO;\n"
    "  channel_names=a:b:c, units=, scales=, full_scales= (one item serves all channels).\n"
    "stdin commands: press MS, down, up, reset, stall MS, silence STREAM MS, lose STREAM N, garbage N,\n"
    "  drop N, corrupt N, unplug MS [power], led, totals, quit; each is answered by one line, `ok ...` or `error ...`.\n"
    "\n"
    "Example:\n"
    "  edgecap-fw-host --link /tmp/hand --stream name=imu,kind=imu,rate_hz=1000,model=motion,channels=6\n";

static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("edgecap-fw-host: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

static double number(const char *what, const char *text, double low, double high)
{
    char *end = NULL;
    errno = 0;
    const double value = strtod(text, &end);
    if (*text == 0 || *end != 0 || errno != 0 || !(value >= low && value <= high))
        fail("%s: `%s` is not a number from %g to %g", what, text, low, high);
    return value;
}

static uint8_t choose(const char *what, const char *text, const char *const *names, uint8_t n)
{
    for (uint8_t i = 0; i < n; i++)
        if (strcmp(text, names[i]) == 0)
            return (uint8_t)(i + 1);
    fail("%s: `%s` is not known", what, text);
    return 0;
}

/* What a SPEC said, before it is put together. */
typedef struct {
    char *file, *model, *channels, *channel_names, *units, *scales, *full_scales, *dtype;
} spec_texts;

static void keep(char **slot, const char *text)
{
    free(*slot);
    *slot = strdup(text);
    if (*slot == NULL)
        fail("out of memory");
}

static void give_own_clock(sensor *s, double ppm)
{
    s->stream.given = true;
    s->own_ppb = llround(1000.0 * ppm);
}

static void parse_pair(sensor *s, spec_texts *texts, const char *key, const char *value)
{
    static const char *const KINDS[] = {"imu", "force", "tactile", "magnetic", "scalar"};
    if (strcmp(key, "name") == 0)
        keep((char **)&s->stream.name, value);
    else if (strcmp(key, "kind") == 0)
        s->stream.kind = choose("kind", value, KINDS, 5);
    else if (strcmp(key, "rate_hz") == 0)
        s->stream.rate_mhz = (uint32_t)llround(1000.0 * number("rate_hz", value, 0.1, 10000.0));
    else if (strcmp(key, "lag_us") == 0)
        s->stream.lag_us = (int32_t)number("lag_us", value, -1e9, 1e9);
    else if (strcmp(key, "own_ppm") == 0)
        give_own_clock(s, number("own_ppm", value, -50000.0, 50000.0));
    else if (strcmp(key, "dtype") == 0)
        keep(&texts->dtype, value);
    else if (strcmp(key, "file") == 0)
        keep(&texts->file, value);
    else if (strcmp(key, "model") == 0)
        keep(&texts->model, value);
    else if (strcmp(key, "channels") == 0)
        keep(&texts->channels, value);
    else if (strcmp(key, "channel_names") == 0)
        keep(&texts->channel_names, value);
    else if (strcmp(key, "units") == 0)
        keep(&texts->units, value);
    else if (strcmp(key, "scales") == 0)
        keep(&texts->scales, value);
    else if (strcmp(key, "full_scales") == 0)
        keep(&texts->full_scales, value);
    else
        fail("--stream: unknown key `%s`", key);
}

/* Item c of a colon-separated list; a list of one applies to every channel. */
static char *item(const char *what, const char *list, unsigned c, unsigned n)
{
    unsigned count = 1;
    for (const char *p = list; *p; p++)
        count += *p == ':';
    if (count != 1 && count != n)
        fail("--stream: %s names %u of %u channels", what, count, n);
    const char *p = list;
    for (unsigned i = 0; i < (count == 1 ? 0 : c); i++)
        p = strchr(p, ':') + 1;
    char *copy = strndup(p, strcspn(p, ":"));
    if (copy == NULL)
        fail("out of memory");
    return copy;
}

static float item_number(const char *what, const char *list, unsigned c, unsigned n)
{
    char *text = item(what, list, c, n);
    const float value = (float)number(what, text, -1e30, 1e30);
    free(text);
    return value;
}

static void fill_channels(sensor *s, const spec_texts *texts)
{
    const unsigned n = s->stream.n_channels;
    for (unsigned c = 0; c < n; c++) {
        char numbered[8];
        snprintf(numbered, sizeof numbered, "c%u", c);
        ec_channel *channel = &s->channels[c];
        channel->name = item("channel_names", texts->channel_names ? texts->channel_names : numbered, c, n);
        channel->unit = item("units", texts->units ? texts->units : "count", c, n);
        channel->scale = item_number("scales", texts->scales ? texts->scales : "1", c, n);
        channel->full_scale = item_number("full_scales", texts->full_scales ? texts->full_scales : "0", c, n);
        if (channel->scale == 0.0f)
            fail("--stream: a scale is 0");
    }
    s->stream.channels = s->channels;
}

static void load_recording(sensor *s, const char *path)
{
    npy array;
    const char *wrong = npy_load(path, &array);
    if (wrong != NULL)
        fail("%s: %s", path, wrong);
    const uint8_t dtype = s->stream.dtype;
    const bool fits = array.type == 'f' ? dtype == EC_FLOAT32
                      : array.item_bytes == 2 ? dtype == EC_INT16
                                              : dtype == EC_INT32 || dtype == EC_INT24;
    if (!fits)
        fail("%s: its dtype does not suit the stream's dtype", path);
    if (array.columns > EC_MAX_CHANNELS)
        fail("%s: more than %u channels", path, EC_MAX_CHANNELS);
    if (dtype == EC_INT24) {
        const size_t items = (size_t)(array.rows * array.columns);
        for (size_t i = 0; i < items; i++) {
            const int32_t value = (int32_t)ec_get_u32(array.data + 4 * i);
            if (value < -0x800000 || value > 0x7FFFFF)
                fail("%s: value %d does not fit int24", path, value);
            ec_put_u24(array.data + 3 * i, (uint32_t)value);
        }
    }
    s->path = path;
    s->rows = array.data;
    s->n_rows = array.rows;
    s->stream.n_channels = (uint8_t)array.columns;
}

static void finish_stream(sensor *s, spec_texts *texts, uint64_t number_of_stream)
{
    static const char *const DTYPES[] = {"int16", "int24", "int32", "float32"};
    if (s->stream.name == NULL || s->stream.kind == 0 || s->stream.rate_mhz == 0)
        fail("--stream %llu: needs name, kind and rate_hz", (unsigned long long)number_of_stream);
    s->stream.dtype = choose("dtype", texts->dtype ? texts->dtype : "int16", DTYPES, 4);
    if ((texts->file == NULL) == (texts->model == NULL))
        fail("--stream %s: needs either file=REC.npy or model=motion", s->stream.name);
    if (texts->file != NULL) {
        load_recording(s, texts->file);
    } else {
        if (strcmp(texts->model, "motion") != 0)
            fail("--stream %s: model `%s` is not known; use motion", s->stream.name, texts->model);
        const char *channels = texts->channels ? texts->channels : "";
        s->stream.n_channels = (uint8_t)number("channels", channels, 1, EC_MAX_CHANNELS);
    }
    fill_channels(s, texts);
    static const uint32_t WIDTH[] = {[EC_INT16] = 2, [EC_INT24] = 3, [EC_INT32] = 4, [EC_FLOAT32] = 4};
    s->row_bytes = WIDTH[s->stream.dtype] * s->stream.n_channels;
    char **const all[] = {&texts->model,  &texts->channels, &texts->channel_names, &texts->units,
                          &texts->scales, &texts->full_scales, &texts->dtype};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(*all[i]);
    if (s->path == NULL)
        free(texts->file);
}

static void parse_stream(options *opts, const char *text)
{
    if (opts->n_sensors == EC_MAX_STREAMS)
        fail("more than %u streams", EC_MAX_STREAMS);
    sensor *s = &opts->sensors[opts->n_sensors++];
    spec_texts texts = {0};
    char *copy = strdup(text);
    char *rest = NULL;
    for (char *pair = strtok_r(copy, ",", &rest); pair != NULL; pair = strtok_r(NULL, ",", &rest)) {
        char *equals = strchr(pair, '=');
        if (equals == NULL)
            fail("--stream: `%s` is not key=value", pair);
        *equals = 0;
        parse_pair(s, &texts, pair, equals + 1);
    }
    free(copy);
    finish_stream(s, &texts, opts->n_sensors);
}

void options_parse(options *opts, int argc, char **argv)
{
    static const struct option LONG[] = {
        {"link", required_argument, NULL, 'l'},      {"serial", required_argument, NULL, 's'},
        {"skew-ppm", required_argument, NULL, 'k'},  {"start-us", required_argument, NULL, 'u'},
        {"stream", required_argument, NULL, 'm'},    {"replay-loop", no_argument, NULL, 'r'},
        {"replay-once", no_argument, NULL, 'o'},     {"truth", required_argument, NULL, 't'},
        {"usb-frame-us", required_argument, NULL, 'f'}, {"seed", required_argument, NULL, 'e'},
        {"help", no_argument, NULL, 'h'},            {NULL, 0, NULL, 0},
    };
    memset(opts, 0, sizeof *opts);
    opts->serial_number = "host-0001";
    opts->loop = true;
    opts->seed = 1;
    for (int c; (c = getopt_long(argc, argv, "", LONG, NULL)) != -1;) {
        switch (c) {
        case 'l': opts->link = optarg; break;
        case 's': opts->serial_number = optarg; break;
        case 'k': opts->skew_ppb = llround(1000.0 * number("--skew-ppm", optarg, -5000, 5000)); break;
        case 'u': opts->start_us = (uint64_t)number("--start-us", optarg, 0, 4294967295.0); break;
        case 'm': parse_stream(opts, optarg); break;
        case 'r': opts->loop = true; break;
        case 'o': opts->loop = false; break;
        case 't': opts->truth = optarg; break;
        case 'f': opts->usb_frame_ns = (int64_t)number("--usb-frame-us", optarg, 0, 1e6) * 1000; break;
        case 'e': opts->seed = (uint64_t)number("--seed", optarg, 0, 9007199254740992.0); break;
        case 'h': fputs(HELP, stdout); exit(0);
        default: exit(2);
        }
    }
    if (optind < argc)
        fail("`%s` is not an option", argv[optind]);
    for (uint8_t i = 0; i < opts->n_sensors; i++)
        opts->sensors[i].seed = opts->seed;
}

void options_free(options *opts)
{
    for (uint8_t i = 0; i < opts->n_sensors; i++) {
        sensor *s = &opts->sensors[i];
        for (uint8_t c = 0; c < s->stream.n_channels; c++) {
            free((char *)s->channels[c].name);
            free((char *)s->channels[c].unit);
        }
        free((char *)s->stream.name);
        free((char *)s->path);
        free(s->rows);
    }
}
