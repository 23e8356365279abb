// Numbers as people read them. A dash stands for what is not known.

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const FINE = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const DASH = "–";

export function number(value) {
  if (value === null || value === undefined) return DASH;
  return Math.abs(value) >= 100 || Number.isInteger(value) ? NUMBER.format(value) : FINE.format(value);
}

/** Seconds in the two units that matter. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  if (seconds === 0) return "0 s";
  if (seconds < 0.1) return `${FINE.format(seconds * 1000)} ms`;
  if (seconds < 60 && Number.isInteger(seconds)) return `${seconds} s`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(2) : seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** Seconds of audio in hours. */
export function hours(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  return `${FINE.format(seconds / 3600)} h`;
}

export function bytes(value) {
  if (value === null || value === undefined) return DASH;
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (value >= size) return `${FINE.format(value / size)} ${unit}`;
  }
  return `${value} B`;
}

export function percent(share) {
  return share === null || share === undefined ? DASH : `${Math.round(share * 100)} %`;
}

/** A moment in the recording. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const minutes = Math.floor(whole / 60) % 60;
  const two = (value) => String(value).padStart(2, "0");
  return whole >= 3600 ? `${Math.floor(whole / 3600)}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A moment of the day. */
export function time(at) {
  return new Date(at).toLocaleTimeString("en-GB");
}

export function moment(at) {
  return at ? `${new Date(at).toLocaleDateString("en-CA")} ${time(at)}` : DASH;
}
