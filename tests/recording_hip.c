/* SPDX-License-Identifier: MIT
 * A HIP runtime that runs nothing and writes down what it is asked.
 *
 * It has the soname and the ABI of the real library, so that what loads libamdhip64 can be
 * tested where no GPU is. Each module load, launch and memset becomes one line of JSON in
 * the file that RECORDING_HIP_LOG names. Device memory is the process's own memory.
 *
 * RECORDING_HIP_DEVICES (1), RECORDING_HIP_ARCH (gfx950:sramecc+:xnack-), RECORDING_HIP_CUS
 * (256), RECORDING_HIP_VERSION (70100000) and RECORDING_HIP_CAPTURING (0) say what it pretends;
 * RECORDING_HIP_FAIL names a function, or a kernel, that answers hipErrorOutOfMemory.
 *
 * RECORDING_HIP_RESULTS names a directory of results: a launch of a kernel puts the bytes of the
 * file with its name where the argument's eight bytes at RECORDING_HIP_OUT_AT (64) point.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, NO_DEVICE = 100,
       INVALID_DEVICE = 101, INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900 };

typedef struct { char* image; size_t size; int device; int number; } module_t;
typedef struct { module_t* module; char* symbol; } function_t;

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static __thread int current;
static int modules;

static long setting(const char* name, long otherwise)
{
    const char* text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

static int failing(const char* function)
{
    const char* text = getenv("RECORDING_HIP_FAIL");
    return text && strcmp(text, function) == 0;
}

static void record(const char* line)
{
    const char* path = getenv("RECORDING_HIP_LOG");
    FILE* log = path ? fopen(path, "a") : NULL;
    if(!log)
        return;
    fprintf(log, "%s\n", line);
    fclose(log);
}

static int put_result(const char* symbol, const uint8_t* kernarg)
{
    const char* directory = getenv("RECORDING_HIP_RESULTS");
    char path[4096];
    char* out;
    int byte;
    if(!directory)
        return OK;
    snprintf(path, sizeof path, "%s/%s", directory, symbol);
    FILE* result = fopen(path, "rb");
    if(!result)
        return NOT_FOUND;
    memcpy(&out, kernarg + setting("RECORDING_HIP_OUT_AT", 64), sizeof out);
    while((byte = fgetc(result)) != EOF)
        *out++ = (char)byte;
    fclose(result);
    return OK;
}

EXPORT int hipInit(unsigned flags) { (void)flags; return OK; }

EXPORT int hipRuntimeGetVersion(int* version)
{
    *version = (int)setting("RECORDING_HIP_VERSION", 70100000);
    return OK;
}

EXPORT int hipGetDeviceCount(int* count)
{
    *count = (int)setting("RECORDING_HIP_DEVICES", 1);
    return *count ? OK : NO_DEVICE;
}

EXPORT int hipGetDevice(int* device) { *device = current; return OK; }

EXPORT int hipSetDevice(int device)
{
    if(device < 0 || device >= setting("RECORDING_HIP_DEVICES", 1))
        return INVALID_DEVICE;
    current = device;
    return OK;
}

/* The struct of HIP 6 and newer: 1472 bytes, gcnArchName at 1160. */
EXPORT int hipGetDevicePropertiesR0600(char* properties, int device)
{
    const char* arch = getenv("RECORDING_HIP_ARCH");
    if(device < 0 || device >= setting("RECORDING_HIP_DEVICES", 1))
        return INVALID_DEVICE;
    memset(properties, 0, 1472);
    strcpy(properties, "Recorder gfx000");
    strcpy(properties + 1160, arch ? arch : "gfx950:sramecc+:xnack-");
    return OK;
}

EXPORT int hipDeviceGetAttribute(int* value, int attribute, int device)
{
    if(device < 0 || device >= setting("RECORDING_HIP_DEVICES", 1))
        return INVALID_DEVICE;
    if(attribute != 63) /* hipDeviceAttributeMultiprocessorCount */
        return INVALID_VALUE;
    *value = (int)setting("RECORDING_HIP_CUS", 256);
    return OK;
}

EXPORT int hipModuleLoadData(void** module, const void* image)
{
    const Elf64_Ehdr* head = image;
    char line[200];
    if(failing("hipModuleLoadData"))
        return OUT_OF_MEMORY;
    usleep((useconds_t)setting("RECORDING_HIP_LOAD_MS", 0) * 1000);
    if(memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 || head->e_machine != 224)
        return INVALID_IMAGE;
    module_t* m = malloc(sizeof *m);
    m->size     = head->e_shoff + (size_t)head->e_shnum * head->e_shentsize;
    m->image    = malloc(m->size);
    memcpy(m->image, image, m->size);
    m->device = current;
    pthread_mutex_lock(&guard);
    m->number = modules++;
    snprintf(line, sizeof line, "{\"call\": \"load\", \"module\": %d, \"bytes\": %zu, \"device\": %d}",
             m->number, m->size, current);
    record(line);
    pthread_mutex_unlock(&guard);
    *module = m;
    return OK;
}

EXPORT int hipModuleUnload(void* module) { (void)module; return OK; }

EXPORT int hipModuleGetFunction(void** function, void* module, const char* symbol)
{
    module_t* m = module;
    if(!memmem(m->image, m->size, symbol, strlen(symbol)))
        return NOT_FOUND;
    function_t* f = malloc(sizeof *f);
    f->module     = m;
    f->symbol     = strdup(symbol);
    *function     = f;
    return OK;
}

EXPORT int hipModuleLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                                 unsigned by, unsigned bz, unsigned lds, void* stream,
                                 void** params, void** extra)
{
    function_t* f     = function;
    const uint8_t* at = NULL;
    size_t size       = 0;
    if(!f || params || !extra || failing("hipModuleLaunchKernel"))
        return f ? (failing("hipModuleLaunchKernel") ? OUT_OF_MEMORY : INVALID_VALUE) : INVALID_HANDLE;
    if(f->module->device != current)
        return INVALID_DEVICE;
    for(; *extra != (void*)3; extra += 2)
    {
        if(*extra == (void*)1)
            at = extra[1];
        else if(*extra == (void*)2)
            size = *(size_t*)extra[1];
        else
            return INVALID_VALUE;
    }
    if(failing(f->symbol))
        return OUT_OF_MEMORY;
    if(!getenv("RECORDING_HIP_LOG"))
        return put_result(f->symbol, at);
    char* line = malloc(1000 + strlen(f->symbol) + 2 * size);
    int n      = sprintf(line,
                    "{\"call\": \"launch\", \"module\": %d, \"symbol\": \"%s\", \"device\": %d, "
                    "\"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], \"lds\": %u, "
                    "\"stream\": %llu, \"kernarg\": \"",
                    f->module->number, f->symbol, current, gx, gy, gz, bx, by, bz, lds,
                    (unsigned long long)(uintptr_t)stream);
    for(size_t i = 0; i < size; i++)
        n += sprintf(line + n, "%02x", at[i]);
    sprintf(line + n, "\"}");
    pthread_mutex_lock(&guard);
    record(line);
    pthread_mutex_unlock(&guard);
    free(line);
    return put_result(f->symbol, at);
}

EXPORT int hipMemsetAsync(void* to, int value, size_t size, void* stream)
{
    char line[200];
    snprintf(line, sizeof line,
             "{\"call\": \"memset\", \"to\": %llu, \"value\": %d, \"bytes\": %zu, \"stream\": %llu}",
             (unsigned long long)(uintptr_t)to, value, size, (unsigned long long)(uintptr_t)stream);
    pthread_mutex_lock(&guard);
    record(line);
    pthread_mutex_unlock(&guard);
    return OK;
}

EXPORT int hipMemcpy(void* to, const void* from, size_t size, int kind)
{
    if(kind == 2 && failing("hipMemcpy")) /* hipMemcpyDeviceToHost */
        return OUT_OF_MEMORY;
    memcpy(to, from, size);
    return OK;
}

EXPORT int hipMalloc(void** to, size_t size)
{
    if(failing("hipMalloc"))
        return OUT_OF_MEMORY;
    *to = malloc(size ? size : 1);
    return *to ? OK : OUT_OF_MEMORY;
}

EXPORT int hipFree(void* what) { free(what); return OK; }

EXPORT int hipStreamIsCapturing(void* stream, int* status)
{
    (void)stream;
    *status = (int)setting("RECORDING_HIP_CAPTURING", 0);
    return OK;
}

EXPORT int hipStreamSynchronize(void* stream) { (void)stream; return OK; }

EXPORT const char* hipGetErrorName(int code)
{
    switch(code)
    {
    case OK: return "hipSuccess";
    case INVALID_VALUE: return "hipErrorInvalidValue";
    case OUT_OF_MEMORY: return "hipErrorOutOfMemory";
    case INVALID_IMAGE: return "hipErrorInvalidImage";
    case NO_DEVICE: return "hipErrorNoDevice";
    case INVALID_DEVICE: return "hipErrorInvalidDevice";
    case INVALID_HANDLE: return "hipErrorInvalidHandle";
    case NOT_FOUND: return "hipErrorNotFound";
    default: return "hipErrorUnknown";
    }
}

EXPORT const char* hipGetErrorString(int code) { return code ? "it said no" : "no error"; }
