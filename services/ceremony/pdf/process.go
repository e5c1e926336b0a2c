package pdf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

var (
	errLimit = errors.New("pdf: helper reached its limit")
	errCrash = errors.New("pdf: helper ended unexpectedly")
)

// process is one running helper. It does one job at a time.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	ended sync.Once
	code  int
}

// startProcess runs this binary again as a helper, with nothing of the service's environment.
func startProcess(cacheDir string, stderr io.Writer) (*process, error) {
	path, err := self()
	if err != nil {
		return nil, fmt.Errorf("pdf: find own binary: %w", err)
	}
	cmd := exec.Command(path)
	cmd.Args = []string{"countersign-pdf"}
	cmd.Dir = os.TempDir()
	cmd.Env = []string{helperVariable + "=" + helperName, cacheVariable + "=" + cacheDir, "GOMAXPROCS=2", "GOTRACEBACK=single"}
	cmd.Stderr = stderr
	cmd.SysProcAttr = isolate()
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("pdf: start helper: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("pdf: start helper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("pdf: start helper: %w", err)
	}
	return &process{cmd: cmd, in: in, out: bufio.NewReaderSize(out, 64<<10)}, nil
}

// self is the binary that runs now, even if another has been installed in its place since.
func self() (string, error) {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe", nil
	}
	return os.Executable()
}

// call does one job. After any error the process has ended: errLimit (time or memory), errCrash, ctx's or stop's.
func (p *process) call(ctx, stop context.Context, limit time.Duration, req request, body []byte) (response, error) {
	type answer struct {
		res response
		err error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		if a.err = writeMessage(p.in, req, body); a.err == nil {
			a.res.body, a.err = readMessage(p.out, &a.res)
		}
		done <- a
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case a := <-done:
		if a.err == nil {
			return a.res, nil
		}
		if code := p.end(); code == exitTime || code == exitMemory {
			return response{}, errLimit
		}
		return response{}, fmt.Errorf("%w: %w", errCrash, a.err)
	case <-timer.C:
		p.end()
		<-done
		return response{}, errLimit
	case <-ctx.Done():
		p.end()
		<-done
		return response{}, ctx.Err()
	case <-stop.Done():
		p.end()
		<-done
		return response{}, ErrClosed
	}
}

// end kills the process, waits for its end and returns its exit code, -1 if a signal ended it. It may be called again.
func (p *process) end() int {
	p.ended.Do(func() {
		_ = p.in.Close()
		if !p.leaving() {
			_ = p.cmd.Process.Kill()
		}
		_ = p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
	})
	return p.code
}

// leaving waits a moment for a process whose output has ended: it is on its way out, and its exit code says why.
func (p *process) leaving() bool {
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, p.out)
		close(gone)
	}()
	patience := time.NewTimer(200 * time.Millisecond)
	defer patience.Stop()
	select {
	case <-gone:
		return true
	case <-patience.C:
		return false
	}
}
