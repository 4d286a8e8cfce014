package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/allexgo/machine-agent/agent/config"
)

const (
	tracesEvery = time.Second // they leave in batches
	tracesFlush = time.Second // for the last of them when the agent leaves
)

// traces are sent to where the configuration says, by nobody who is waited for:
// what can not be sent is dropped. The zero value sends none.
type traces struct {
	provider *sdk.TracerProvider
}

// sendTraces has them sent; id is the agent's.
func sendTraces(cfg config.Config, id string, log hclog.Logger) (traces, error) {
	if cfg.Tracing.Endpoint == "" {
		return traces{}, nil
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("traces are lost; look at the endpoint of `tracing`", "error", err)
	}))
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(cfg.Tracing.Endpoint))
	if err != nil {
		return traces{}, fmt.Errorf("no traces are sent: %w", err)
	}
	about := resource.NewSchemaless(
		attribute.String("service.name", "machineagent"), attribute.String("service.version", version),
		attribute.String("service.instance.id", id), attribute.String("host.name", cfg.Name))
	return traces{sdk.NewTracerProvider(sdk.WithResource(about), sdk.WithBatcher(exporter, sdk.WithBatchTimeout(tracesEvery)))}, nil
}

// tracer is nil if none are sent.
func (t traces) tracer() trace.Tracer {
	if t.provider == nil {
		return nil
	}
	return t.provider.Tracer("github.com/allexgo/machine-agent")
}

// end sends the last of them.
func (t traces) end() {
	if t.provider == nil {
		return
	}
	within, stop := context.WithTimeout(context.Background(), tracesFlush)
	defer stop()
	_ = t.provider.Shutdown(within) // the error handler has heard of what is lost
}
