/* Reads .npy files: C-order [T, C] (or [T]) of <i2, <i4 or <f4. */
#ifndef HOST_NPY_H
#define HOST_NPY_H

#include <stdint.h>

typedef struct {
    char type; /* 'i' or 'f' */
    uint32_t item_bytes;
    uint64_t rows;
    uint64_t columns;
    uint8_t *data; /* to be freed by the caller */
} npy;

/* Returns NULL, or what is wrong with the file. */
const char *npy_load(const char *path, npy *array);

#endif
