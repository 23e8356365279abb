"""The sentences that the bundled model knows: a closed grammar of numbers, times, dates, names and places (pure).

Numbers are words, so a transcript is compared word by word without any normalisation of digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random

Make = Callable[[Random], str]

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
HOURS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
MINUTES = ["fifteen", "thirty", "forty five", "twenty", "ten", "twenty five", "fifty", "o'clock", "o'clock"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "fifteenth",
    "twentieth",
    "thirtieth",
]
CITIES = ["London", "Paris", "Berlin", "Madrid", "Rome", "Hanoi", "Tokyo", "Boston", "Chicago", "Sydney"]
NAMES = ["Anna", "Peter", "Maria", "David"]
TENS = ["twenty", "thirty", "forty", "fifty"]
ROOMS = ["kitchen", "bedroom", "office", "garden"]

VI_DIGITS = ["không", "một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín"]
VI_HOURS = ["một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín", "mười"]
VI_MINUTES = ["", "", " mười phút", " hai mươi phút", " ba mươi phút", " bốn mươi phút"]
VI_CITIES = ["Hà Nội", "Huế", "Đà Nẵng", "Sài Gòn", "Hải Phòng"]
VI_NAMES = ["Nam", "Lan", "Minh", "Hoa"]
VI_DAYS = ["hai", "ba", "tư", "năm", "sáu", "bảy"]
VI_PARTS = ["sáng", "trưa", "chiều", "tối"]

# One sentence in eight, by its MD5, was never trained on.
_HELD_OUT_OF = 8


def held_out_sentence(language: str, random: Random) -> str:
    """Return a sentence in `language` (en, vi) that the model was never trained on."""
    makers = [make for _, make in _GRAMMAR[language]]
    weights = [weight for weight, _ in _GRAMMAR[language]]
    while True:
        (make,) = random.choices(makers, weights)
        sentence = make(random)
        if _is_held_out(sentence):
            return sentence


def _is_held_out(sentence: str) -> bool:
    return hashlib.md5(sentence.encode(), usedforsecurity=False).digest()[0] % _HELD_OUT_OF == 0


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _digits(random: Random, words: list[str], least: int, most: int) -> str:
    """Return digits as people say them, in groups of at most four: "two five three, eight eight"."""
    left, groups = random.randint(least, most), []
    while left > 0:
        size = min(left, left if left <= 4 and random.random() < 0.8 else random.choice([2, 3, 3, 3, 4]))
        left -= size
        groups.append(" ".join(random.choice(words) for _ in range(size)))
    return ", ".join(groups)


def _time(random: Random) -> str:
    return f"{random.choice(HOURS)} {random.choice(MINUTES)}"


def _number(random: Random) -> str:
    kind = random.random()
    if kind < 0.4:
        return random.choice(HOURS[1:])
    if kind < 0.7:
        return random.choice(TENS)
    return f"{random.choice(TENS)} {random.choice(DIGITS[1:])}"


def _date(random: Random) -> str:
    return f"{random.choice(MONTHS)} {random.choice(ORDINALS)}"


def _vi_time(random: Random) -> str:
    return f"{random.choice(VI_HOURS)} giờ{random.choice(VI_MINUTES)}"


_ENGLISH: list[tuple[int, Make]] = [
    (5, lambda r: f"{_capital(_digits(r, DIGITS, 3, 8))}."),
    (3, lambda r: f"My order number is {_digits(r, DIGITS, 4, 7)}."),
    (3, lambda r: f"Please call me on {_digits(r, DIGITS, 6, 10)}."),
    (3, lambda r: f"The train to {r.choice(CITIES)} leaves at {_time(r)}."),
    (2, lambda r: f"The flight from {r.choice(CITIES)} to {r.choice(CITIES)} is on {r.choice(DAYS)}."),
    (2, lambda r: f"Book a ticket to {r.choice(CITIES)} for {_date(r)}."),
    (2, lambda r: f"The meeting with {r.choice(NAMES)} is on {r.choice(DAYS)} at {_time(r)}."),
    (2, lambda r: f"Today is {r.choice(DAYS)}, {_date(r)}."),
    (2, lambda r: f"Set an alarm for {_time(r)}."),
    (2, lambda r: f"Turn {r.choice(['on', 'off'])} the lights in the {r.choice(ROOMS)}."),
    (2, lambda r: f"Send {_number(r)} dollars to {r.choice(NAMES)}."),
    (2, lambda r: f"It is {_number(r)} degrees in {r.choice(CITIES)} today."),
    (1, lambda r: f"Good {r.choice(['morning', 'evening'])}, {r.choice(NAMES)}."),
    (1, lambda r: f"Thank you, {r.choice(NAMES)}, see you on {r.choice(DAYS)}."),
    (2, lambda r: f"The total is {_number(r)} dollars and {_number(r)} cents."),
    (1, lambda r: f"Call {r.choice(NAMES)} in {_number(r)} minutes."),
]
_VIETNAMESE: list[tuple[int, Make]] = [
    (5, lambda r: f"{_capital(_digits(r, VI_DIGITS, 3, 8))}."),
    (2, lambda r: f"Số điện thoại của tôi là {_digits(r, VI_DIGITS, 6, 10)}."),
    (2, lambda r: f"Mã đơn hàng là {_digits(r, VI_DIGITS, 4, 7)}."),
    (2, lambda r: f"Cuộc họp bắt đầu lúc {_vi_time(r)} {r.choice(VI_PARTS)} thứ {r.choice(VI_DAYS)}."),
    (2, lambda r: f"Chuyến tàu đi {r.choice(VI_CITIES)} khởi hành lúc {_vi_time(r)}."),
    (1, lambda r: f"Hôm nay là thứ {r.choice(VI_DAYS)}, trời {r.choice(['nắng', 'mưa'])}."),
    (1, lambda r: f"Xin chào, tôi tên là {r.choice(VI_NAMES)}."),
    (1, lambda r: f"Cảm ơn {r.choice(VI_NAMES)}, hẹn gặp lại."),
]
_GRAMMAR = {"en": _ENGLISH, "vi": _VIETNAMESE}
