#ifndef C_RAW_PNG_H
#define C_RAW_PNG_H

#include <stddef.h>
#include <stdint.h>

/* A PNG as it is stored: nothing converted, rows without filters, in the order of the picture. */
struct raw_png {
    uint32_t width;
    uint32_t height;
    int bit_depth;         /* 1, 2, 4, 8 or 16 */
    int color_type;        /* PNG's own: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha */
    size_t row_bytes;
    int palette_count;
    uint8_t palette[768];  /* red, green, blue of each color */
    int orientation;       /* of EXIF, 1 to 8; 0 where the file has none */
    int is_truncated;      /* rows are missing at the end */
    uint8_t *pixels;       /* row_bytes * height, 16-bit samples little-endian; NULL where only the header was read */
};

/* Reads a PNG, or its header alone. Returns 0 where it is none; else the pixels are to be freed by raw_png_free. */
int raw_png_read(const uint8_t *bytes, size_t size, int header_only, struct raw_png *png);
void raw_png_free(struct raw_png *png);

/* Writes 8-bit RGB as a PNG. Returns its size, or 0 where it does not fit the capacity. */
size_t raw_png_write(const uint8_t *rgb, uint32_t width, uint32_t height, uint8_t *out, size_t capacity);

#endif
