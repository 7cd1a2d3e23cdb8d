#include "CRawPng.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

struct source {
    const uint8_t *bytes;
    size_t left;
};

static void take(png_structp reader, png_bytep into, size_t count)
{
    struct source *source = png_get_io_ptr(reader);
    if (count > source->left) {
        source->left = 0;
        png_error(reader, "end of file");
    }
    memcpy(into, source->bytes, count);
    source->bytes += count;
    source->left -= count;
}

static void be_quiet(png_structp reader, png_const_charp message)
{
    (void)reader;
    (void)message;
}

static void give_up(png_structp reader, png_const_charp message)
{
    (void)message;
    png_longjmp(reader, 1);
}

static unsigned number(const uint8_t *at, int count, int is_little)
{
    unsigned value = 0;
    for (int i = 0; i < count; i++) value = value << 8 | at[is_little ? count - 1 - i : i];
    return value;
}

/* Tag 0x0112 of the first directory of a TIFF header, as EXIF has it. */
static int orientation(const uint8_t *exif, size_t size)
{
    if (size < 8 || exif[0] != exif[1] || (exif[0] != 'I' && exif[0] != 'M')) return 0;
    int is_little = exif[0] == 'I';
    size_t at = number(exif + 4, 4, is_little);
    if (at + 2 > size) return 0;
    unsigned count = number(exif + at, 2, is_little);
    for (at += 2; count > 0 && at + 12 <= size; count--, at += 12)
        if (number(exif + at, 2, is_little) == 0x0112) return (int)number(exif + at + 8, 2, is_little);
    return 0;
}

int raw_png_read(const uint8_t *bytes, size_t size, int header_only, struct raw_png *png)
{
    struct source source = {bytes, size};
    png_structp reader = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, give_up, be_quiet);
    png_infop info = png_create_info_struct(reader);
    memset(png, 0, sizeof *png);
    volatile int is_known = 0;
    if (setjmp(png_jmpbuf(reader))) {
        png->is_truncated = is_known;
        if (!is_known) raw_png_free(png);
        png_destroy_read_struct(&reader, &info, NULL);
        return is_known;
    }
    png_set_read_fn(reader, &source, take);
    png_read_info(reader, info);
    png->width = png_get_image_width(reader, info);
    png->height = png_get_image_height(reader, info);
    png->bit_depth = png_get_bit_depth(reader, info);
    png->color_type = png_get_color_type(reader, info);
    png_colorp colors;
    if (png_get_PLTE(reader, info, &colors, &png->palette_count))
        memcpy(png->palette, colors, 3 * (size_t)png->palette_count);
    png_bytep exif;
    png_uint_32 exif_size;
    if (png_get_eXIf_1(reader, info, &exif_size, &exif)) png->orientation = orientation(exif, exif_size);
    png_set_swap(reader);
    int passes = png_set_interlace_handling(reader);
    png_read_update_info(reader, info);
    png->row_bytes = png_get_rowbytes(reader, info);
    is_known = 1;
    if (!header_only) {
        png->pixels = calloc(png->height, png->row_bytes);
        if (png->pixels == NULL) png_error(reader, "out of memory");
        for (int pass = 0; pass < passes; pass++)
            for (uint32_t y = 0; y < png->height; y++) png_read_row(reader, png->pixels + y * png->row_bytes, NULL);
    }
    png_destroy_read_struct(&reader, &info, NULL);
    return 1;
}

void raw_png_free(struct raw_png *png)
{
    free(png->pixels);
    png->pixels = NULL;
}

size_t raw_png_write(const uint8_t *rgb, uint32_t width, uint32_t height, uint8_t *out, size_t capacity)
{
    png_image image = {.version = PNG_IMAGE_VERSION, .width = width, .height = height, .format = PNG_FORMAT_RGB};
    png_alloc_size_t size = capacity;
    return png_image_write_to_memory(&image, out, &size, 0, rgb, 0, NULL) ? size : 0;
}
