// Commands as JSON lines on stdin, each answered by one line on stdout, and the load
// itself: what the Python members of benchmarks/members do, in Go.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const pollPause = 5 * time.Millisecond

type request struct {
	Do       string  `json:"do"`
	Member   int     `json:"member"`
	Members  []int   `json:"members"`
	Killed   string  `json:"killed"`
	Inflight int     `json:"inflight"`
	Seconds  float64 `json:"seconds"`
	WarmUp   float64 `json:"warm_up"`
	Entries  int64   `json:"entries"`
	Bytes    int     `json:"bytes"`
	Keys     int64   `json:"keys"`
}

type answer map[string]interface{}

type write func(worker int, key string, value []byte) error

func key(number, keys int64) string {
	return fmt.Sprintf("key-%06d", number%keys)
}

func value(size int) []byte {
	made := make([]byte, size)
	for i := range made {
		made[i] = 'v'
	}
	return made
}

// load keeps writes in flight for a while, and counts those that end in the window
// behind the warm-up.
func load(r request, put write) (answer, error) {
	body := value(r.Bytes)
	begin := time.Now().Add(time.Duration(r.WarmUp * float64(time.Second)))
	end := begin.Add(time.Duration(r.Seconds * float64(time.Second)))
	var sent, done int64
	var failed atomic.Value
	found := make([][]float64, r.Inflight)
	var workers sync.WaitGroup
	for worker := 0; worker < r.Inflight; worker++ {
		workers.Add(1)
		go func(worker int) {
			defer workers.Done()
			for {
				began := time.Now()
				if began.After(end) {
					return
				}
				if err := put(worker, key(atomic.AddInt64(&sent, 1), r.Keys), body); err != nil {
					failed.Store(err.Error())
					return
				}
				atomic.AddInt64(&done, 1)
				ended := time.Now()
				if ended.After(begin) && ended.Before(end) {
					found[worker] = append(found[worker], ended.Sub(began).Seconds()*1e3)
				}
			}
		}(worker)
	}
	workers.Wait()
	if text := failed.Load(); text != nil {
		return nil, fmt.Errorf("a write failed: %s", text)
	}
	var all []float64
	for _, each := range found {
		all = append(all, each...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no write ended within %.1f s", r.Seconds)
	}
	sort.Float64s(all)
	return answer{
		"rate": float64(len(all)) / r.Seconds, "p50_ms": all[len(all)/2],
		"p99_ms": all[len(all)*99/100], "answered": done,
	}, nil
}

// fill makes a number of writes.
func fill(r request, put write) (answer, error) {
	body := value(r.Bytes)
	began := time.Now()
	var sent int64
	var failed atomic.Value
	var workers sync.WaitGroup
	for worker := 0; worker < r.Inflight; worker++ {
		workers.Add(1)
		go func(worker int) {
			defer workers.Done()
			for number := atomic.AddInt64(&sent, 1); number <= r.Entries; number = atomic.AddInt64(&sent, 1) {
				if err := put(worker, key(number, r.Keys), body); err != nil {
					failed.Store(err.Error())
					return
				}
			}
		}(worker)
	}
	workers.Wait()
	if text := failed.Load(); text != nil {
		return nil, fmt.Errorf("a write failed: %s", text)
	}
	return answer{"seconds": time.Since(began).Seconds()}, nil
}

// serve reads commands until stdin is closed.
func serve(commands map[string]func(request) (answer, error)) {
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var told request
		if err := json.Unmarshal(lines.Bytes(), &told); err != nil {
			log.Fatal(err)
		}
		result, err := commands[told.Do](told)
		if err != nil {
			result = answer{"error": err.Error()}
		}
		if err := out.Encode(result); err != nil {
			log.Fatal(err)
		}
	}
}
