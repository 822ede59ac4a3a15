/*
 * Prints a line per frame: always the newest one that was not seen yet, copied into a buffer of our own.
 *
 *   cc latest.c $(pkg-config --cflags --libs camring) -o latest
 *   ./latest front 100          # a hundred frames; without a number: for ever
 */
#include <camring.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(const char *what, int code)
{
    fprintf(stderr, "latest: %s: %s\n", what, camring_strerror(code));
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "front";
    long left = argc > 2 ? atol(argv[2]) : -1;
    struct camring_frame frame = {.struct_size = sizeof frame};
    struct camring_ring *ring = NULL;
    uint8_t *buffer = NULL;
    size_t bytes = 0;

    int code = camring_attach(name, 10 * CAMRING_SECOND, NULL, &ring);
    if (code != CAMRING_OK)
        return failed("attach", code);

    while (left != 0) {
        code = camring_next(ring, buffer, bytes, 10 * CAMRING_SECOND, &frame);
        if (code == CAMRING_ERROR_BUFFER_SIZE) { /* the first frame, or a larger one */
            bytes = frame.payload_bytes;
            free(buffer);
            buffer = malloc(bytes);
            if (buffer == NULL)
                return failed("memory", CAMRING_ERROR_SYSTEM);
            continue;
        }
        if (code == CAMRING_ERROR_TIMEOUT) { /* the camera is away; the sentence says why */
            failed("still waiting", code);
            continue;
        }
        if (code != CAMRING_OK)
            return failed("next", code);

        printf("%" PRIu64 " skipped %" PRIu64 " age %.1f ms, %" PRIu32 "x%" PRIu32 ", first byte %d\n", frame.seq,
               frame.skipped, (double)frame.age_ns / 1e6, frame.width, frame.height, frame.payload[0]);
        if (left > 0)
            left--;
    }
    free(buffer);
    return camring_detach(ring) == CAMRING_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
