/* One handle in many threads: no frame is given out twice, errors belong to their thread, a detach ends waits. */
#include "check.h"

#include <pthread.h>
#include <string.h>

#define THREADS 6
#define FRAMES 100000

static struct camring_ring *ring;
static unsigned char seen[FRAMES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int taken;
static long wanted;

static void *reader(void *unused)
{
    static __thread uint8_t buffer[1 << 16];
    struct camring_frame frame = {.struct_size = sizeof frame};
    (void)unused;
    for (;;) {
        int code = camring_next(ring, buffer, sizeof buffer, CAMRING_FOREVER, &frame);
        if (code == CAMRING_ERROR_HANDLE)
            return NULL;
        EXPECT(CAMRING_OK, code);
        CHECK(is_whole(&frame) && frame.seq < FRAMES);
        pthread_mutex_lock(&lock);
        CHECK(!seen[frame.seq]);
        seen[frame.seq] = 1;
        taken++;
        pthread_mutex_unlock(&lock);
    }
}

static void *waiter(void *unused)
{
    size_t ready, count;
    struct camring_ring *rings[2] = {ring, ring};
    (void)unused;
    for (;;) {
        int code = camring_wait_any(rings, 1, CAMRING_FOREVER, &ready, &count);
        if (code == CAMRING_ERROR_HANDLE)
            break;
        EXPECT(CAMRING_OK, code);
    }
    EXPECT(CAMRING_ERROR_HANDLE, camring_wait(ring, CAMRING_FOREVER));
    return NULL;
}

static void *wrong(void *unused)
{
    (void)unused;
    for (int i = 0; i < 2000; i++) {
        EXPECT(CAMRING_ERROR_ARGUMENT, camring_wait(ring, -5));
        CHECK(strstr(camring_strerror(CAMRING_ERROR_ARGUMENT), "-5") != NULL);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS], waiting, erring;
    CHECK(argc == 3);
    wanted = atol(argv[2]);
    EXPECT(CAMRING_OK, camring_attach(argv[1], 20 * CAMRING_SECOND, NULL, &ring));
    CHECK(pthread_create(&erring, NULL, wrong, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, reader, NULL) == 0);
    CHECK(pthread_create(&waiting, NULL, waiter, NULL) == 0);
    for (int i = 0; i < 2000; i++) {
        EXPECT(CAMRING_ERROR_ARGUMENT, camring_wait(ring, -6));
        CHECK(strstr(camring_strerror(CAMRING_ERROR_ARGUMENT), "-6") != NULL);
    }
    for (long now = 0; now < wanted;) {
        pthread_mutex_lock(&lock);
        now = taken;
        pthread_mutex_unlock(&lock);
        /* Paces the look at the count; whether a frame is there at the moment does not matter. */
        camring_wait(ring, CAMRING_SECOND / 200);
    }
    printf("detaching\n");
    fflush(stdout);
    /* The writer publishes no more from here on: only the detach can end the waits. */
    CHECK(getchar() == '\n');
    EXPECT(CAMRING_OK, camring_detach(ring));
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(pthread_join(waiting, NULL) == 0);
    CHECK(pthread_join(erring, NULL) == 0);
    printf("%d frames\n", taken);
    return 0;
}
