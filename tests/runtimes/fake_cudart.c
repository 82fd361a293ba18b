/* The calls of libcudart that trt_worker.py makes, on the memory of the host. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static int capturing = 0, graphs = 0;

int cudaStreamCreate(void **stream) { *stream = (void *)0x51; return 0; }
int cudaStreamSynchronize(void *stream) { return stream == (void *)0x51 ? 0 : 400; }
int cudaMalloc(void **out, size_t bytes) { *out = malloc(bytes); return *out ? 0 : 2; }
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
    if (stream != (void *)0x51 || kind < 1 || kind > 2 || capturing) return 1;
    memcpy(to, from, bytes);
    return 0;
}
int cudaStreamBeginCapture(void *stream, int mode) { capturing = 1; return stream == (void *)0x51 && mode == 2 ? 0 : 1; }
int cudaStreamEndCapture(void *stream, void **graph) { *graph = (void *)0x61; return stream && capturing-- ? 0 : 1; }
int cudaGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
    *made = (void *)0x71;
    return graph == (void *)0x61 && flags == 0 ? 0 : 1;
}
int cudaGraphLaunch(void *graph, void *stream) { graphs++; return graph == (void *)0x71 && stream == (void *)0x51 ? 0 : 1; }

int cudaEventCreate(void **event) { *event = (void *)0x81; return 0; }
int cudaEventRecord(void *event, void *stream) { return event == (void *)0x81 && stream == (void *)0x51 ? 0 : 1; }
int cudaEventSynchronize(void *event) { return event == (void *)0x81 ? 0 : 1; }
int cudaEventElapsedTime(float *out, void *start, void *end) { *out = 0.25f; return start == end ? 0 : 1; }
