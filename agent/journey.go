package agent

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/allexgo/machine-agent/agent/metrics"
)

// journey is the trace of one need, from when it was seen to when it is served: a
// span over all of it, and below that one for each stage. It begins with the first
// bid, so that the needs of other machines leave none. The zero value traces
// nothing.
type journey struct {
	tracer trace.Tracer
	whole  trace.Span    // nil: there is none
	under  metrics.Stage // the stage under way
}

// journeyOf begins the trace of an instance's need, if there are traces and it has
// none.
func (l *loop) journeyOf(i *instance) {
	if l.Tracer == nil || i.road.whole != nil {
		return
	}
	_, whole := l.Tracer.Start(context.Background(), "need", trace.WithNewRoot(), trace.WithTimestamp(i.road.seen),
		trace.WithAttributes(attribute.String("machineagent.instance", i.name), attribute.String("machineagent.module", i.road.need.ModuleName)))
	i.road.journey = journey{tracer: l.Tracer, whole: whole}
}

// context is that of whatever belongs to the journey.
func (j *journey) context() context.Context {
	return trace.ContextWithSpan(context.Background(), j.whole)
}

// stage is a stage that is over, and the failure that ended it; "" is none.
func (j *journey) stage(s metrics.Stage, from, to time.Time, failure string) {
	if j.whole == nil {
		return
	}
	_, span := j.tracer.Start(j.context(), s.String(), trace.WithTimestamp(from))
	end(span, to, failure)
	if j.under = metrics.StageBid; failure == "" && s < metrics.StageServe {
		j.under = s + 1
	}
}

// end ends the journey, and says why if it has led to no service here.
func (j *journey) end(at time.Time, failure string) {
	if j.whole != nil {
		end(j.whole, at, failure)
		j.whole = nil
	}
}

func end(span trace.Span, at time.Time, failure string) {
	if failure != "" {
		span.SetStatus(codes.Error, failure)
	}
	span.End(trace.WithTimestamp(at))
}

// environment is what a process finds of the journey that it is part of: the
// variable TRACEPARENT, as W3C Trace Context has the header of that name.
func (j *journey) environment() []string {
	if j.whole == nil {
		return nil
	}
	header := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(j.context(), header)
	return []string{"TRACEPARENT=" + header.Get("traceparent")}
}
