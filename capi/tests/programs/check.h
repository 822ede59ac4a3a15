/* What the test programs share: checks that say where they failed, and the pattern of the synthetic writer. */
#ifndef CHECK_H
#define CHECK_H

#include <camring.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A call that must end with `wanted`. */
#define EXPECT(wanted, call)                                                                                           \
    do {                                                                                                               \
        int expect_code = (call);                                                                                      \
        if (expect_code != (wanted)) {                                                                                 \
            fprintf(stderr, "%s:%d: %s gives %d (%s), expected %d\n", __FILE__, __LINE__, #call, expect_code,          \
                    camring_strerror(expect_code), (wanted));                                                          \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Whether byte k of frame seq is (seq * 31 + k) mod 251 for every k: no mixture of two frames passes. */
static inline int is_whole(const struct camring_frame *frame)
{
    uint64_t value = frame->seq * 31 % 251;
    for (uint64_t k = 0; k < frame->payload_bytes; k++) {
        if (frame->payload[k] != value)
            return 0;
        value = value == 250 ? 0 : value + 1;
    }
    return 1;
}

#endif
