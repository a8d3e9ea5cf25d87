#include "npy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_BYTES 10u
#define HEADER_MAX 4096u

static const char *parse_header(const char *header, npy *array)
{
    const char *descr = strstr(header, "'descr': '");
    const char *shape = strstr(header, "'shape': (");
    if (descr == NULL || shape == NULL)
        return "its header has no descr or shape";
    descr += strlen("'descr': '");
    if (strncmp(descr, "<i2'", 4) == 0 || strncmp(descr, "<i4'", 4) == 0 || strncmp(descr, "<f4'", 4) == 0) {
        array->type = descr[1];
        array->item_bytes = (uint32_t)(descr[2] - '0');
    } else {
        return "its dtype is not int16, int32 or float32 (little-endian)";
    }
    if (strstr(header, "'fortran_order': False") == NULL)
        return "it is in Fortran order; save a C-contiguous array";
    char *end = NULL;
    array->rows = strtoull(shape + strlen("'shape': ("), &end, 10);
    array->columns = 1;
    if (*end == ',' && end[1] == ' ')
        array->columns = strtoull(end + 2, &end, 10);
    if (*end == ',')
        end++;
    if (*end != ')' || array->rows == 0 || array->columns == 0)
        return "its shape is not [T, C] with at least one row";
    return NULL;
}

const char *npy_load(const char *path, npy *array)
{
    array->data = NULL;
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return strerror(errno);
    uint8_t prefix[PREFIX_BYTES];
    char header[HEADER_MAX];
    const char *wrong = NULL;
    if (fread(prefix, 1, PREFIX_BYTES, file) != PREFIX_BYTES || memcmp(prefix, "\x93NUMPY\x01", 7) != 0) {
        wrong = "it is not a .npy file of format 1";
    } else {
        const size_t n = (size_t)prefix[8] | (size_t)prefix[9] << 8;
        if (n >= HEADER_MAX || fread(header, 1, n, file) != n) {
            wrong = "its header is cut short or too long";
        } else {
            header[n] = 0;
            wrong = parse_header(header, array);
        }
    }
    if (wrong == NULL) {
        const size_t items = (size_t)(array->rows * array->columns);
        array->data = malloc(items * array->item_bytes);
        if (array->data == NULL || fread(array->data, array->item_bytes, items, file) != items) {
            free(array->data);
            array->data = NULL;
            wrong = "its data is cut short";
        }
    }
    fclose(file);
    return wrong;
}
