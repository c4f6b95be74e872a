// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {vm, Vm} from "./Vm.sol";
import {ObedientToken, RecordingPermit2} from "./Doubles.sol";
import {IPermit2} from "../src/local/Permit2.sol";
import {LocalPermit2Proxy} from "../src/local/LocalPermit2Proxy.sol";
import {X402ExactPermit2Proxy} from "../src/local/X402ExactPermit2Proxy.sol";

contract X402ExactPermit2ProxyTest {
    // The proxy is placed as on the local chain: runtime code at the canonical address, no constructor run.
    X402ExactPermit2Proxy private constant PROXY =
        X402ExactPermit2Proxy(0x402085c248EeA27D92E8b30b2C58ed07f9E20001);
    RecordingPermit2 private constant PERMIT2 = RecordingPermit2(0x000000000022D473030F116dDEE9F6B43aC78BA3);
    address private constant PAYER = address(0xA11CE);
    address private constant PAYEE = address(0xB0B);
    uint256 private constant NOW = 1_767_225_600;
    bytes private constant SIGNATURE = hex"010203";

    ObedientToken private token;

    function setUp() public {
        vm.etch(address(PROXY), type(X402ExactPermit2Proxy).runtimeCode);
        vm.etch(address(PERMIT2), type(RecordingPermit2).runtimeCode);
        vm.warp(NOW);
        token = new ObedientToken(ObedientToken.Mood.Agree);
    }

    function test_the_constants_are_those_of_the_specification() public view {
        require(address(PROXY.PERMIT2()) == address(PERMIT2), "PERMIT2");
        require(
            PROXY.WITNESS_TYPEHASH() == 0xd97b3239a7f32295517bd14cb074edfdd188dfe5eb42f802bb26d4fd1eb12c37,
            "WITNESS_TYPEHASH"
        );
        bytes32 fullType = keccak256(
            abi.encodePacked(
                "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,",
                PROXY.WITNESS_TYPE_STRING()
            )
        );
        require(fullType == 0xebc156cd23678a74c94df13d772ef5478420637f0c94bd10d509e1dc98f521c7, "WITNESS_TYPE_STRING");
    }

    function test_settle_asks_permit2_for_exactly_what_was_permitted() public {
        vm.recordLogs();
        PROXY.settle(permitOf(10), PAYER, witness(), SIGNATURE);

        require(PERMIT2.calls() == 1, "calls");
        require(PERMIT2.token() == address(token) && PERMIT2.permitted() == 10, "permitted");
        require(PERMIT2.nonce() == 5 && PERMIT2.deadline() == NOW + 60, "permit");
        require(PERMIT2.to() == PAYEE && PERMIT2.requested() == 10 && PERMIT2.owner() == PAYER, "details");
        require(
            PERMIT2.witness() == keccak256(abi.encode(PROXY.WITNESS_TYPEHASH(), PAYEE, NOW)), "witness"
        );
        require(keccak256(bytes(PERMIT2.witnessTypeString())) == keccak256(bytes(PROXY.WITNESS_TYPE_STRING())), "type");
        require(keccak256(PERMIT2.signature()) == keccak256(SIGNATURE), "signature");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        require(logs.length == 1 && logs[0].topics[0] == LocalPermit2Proxy.Settled.selector, "log");
    }

    function test_refusals_come_in_their_order() public {
        X402ExactPermit2Proxy.Witness memory nowhereAndEarly = X402ExactPermit2Proxy.Witness(address(0), NOW + 1);
        X402ExactPermit2Proxy.Witness memory early = X402ExactPermit2Proxy.Witness(PAYEE, NOW + 1);

        vm.expectRevert(LocalPermit2Proxy.InvalidAmount.selector);
        PROXY.settle(permitOf(0), address(0), nowhereAndEarly, SIGNATURE);
        vm.expectRevert(LocalPermit2Proxy.InvalidOwner.selector);
        PROXY.settle(permitOf(1), address(0), nowhereAndEarly, SIGNATURE);
        vm.expectRevert(LocalPermit2Proxy.InvalidDestination.selector);
        PROXY.settle(permitOf(1), PAYER, nowhereAndEarly, SIGNATURE);
        vm.expectRevert(LocalPermit2Proxy.PaymentTooEarly.selector);
        PROXY.settle(permitOf(1), PAYER, early, SIGNATURE);
        require(PERMIT2.calls() == 0, "Permit2 was reached");
    }

    function test_a_settlement_cannot_start_inside_another() public {
        PERMIT2.callBackWith(abi.encodeCall(PROXY.settle, (permitOf(1), PAYER, witness(), SIGNATURE)));
        vm.expectRevert(LocalPermit2Proxy.ReentrancyGuardReentrantCall.selector);
        PROXY.settle(permitOf(1), PAYER, witness(), SIGNATURE);
    }

    function test_one_transaction_may_settle_twice_in_a_row() public {
        PROXY.settle(permitOf(1), PAYER, witness(), SIGNATURE);
        PROXY.settle(permitOf(1), PAYER, witness(), SIGNATURE);
        require(PERMIT2.calls() == 2, "calls");
    }

    function test_settle_with_permit_approves_permit2_first() public {
        vm.recordLogs();
        PROXY.settleWithPermit(approval(10), permitOf(10), PAYER, witness(), SIGNATURE);

        require(token.permittedSpender() == address(PERMIT2) && token.permittedValue() == 10, "approval");
        require(PERMIT2.calls() == 1, "calls");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        require(logs.length == 1 && logs[0].topics[0] == LocalPermit2Proxy.SettledWithPermit.selector, "log");
    }

    function test_settle_with_permit_refuses_another_amount() public {
        vm.expectRevert(LocalPermit2Proxy.Permit2612AmountMismatch.selector);
        PROXY.settleWithPermit(approval(11), permitOf(10), PAYER, witness(), SIGNATURE);
    }

    function test_a_failing_permit_is_reported_and_does_not_stop_the_settlement() public {
        failingPermit(
            ObedientToken.Mood.Reason,
            LocalPermit2Proxy.EIP2612PermitFailedWithReason.selector,
            abi.encode("permit refused")
        );
        failingPermit(
            ObedientToken.Mood.Panic, LocalPermit2Proxy.EIP2612PermitFailedWithPanic.selector, abi.encode(uint256(1))
        );
        failingPermit(
            ObedientToken.Mood.Custom,
            LocalPermit2Proxy.EIP2612PermitFailedWithData.selector,
            abi.encode(abi.encodeWithSelector(ObedientToken.Unwilling.selector, 7))
        );
    }

    function failingPermit(ObedientToken.Mood mood, bytes32 topic, bytes memory data) private {
        token = new ObedientToken(mood);
        vm.recordLogs();
        PROXY.settleWithPermit(approval(10), permitOf(10), PAYER, witness(), SIGNATURE);

        Vm.Log[] memory logs = vm.getRecordedLogs();
        require(logs.length == 2 && logs[0].topics[0] == topic, "log");
        require(logs[0].topics[1] == bytes32(uint256(uint160(address(token)))), "token");
        require(logs[0].topics[2] == bytes32(uint256(uint160(PAYER))), "owner");
        require(keccak256(logs[0].data) == keccak256(data), "data");
        require(logs[1].topics[0] == LocalPermit2Proxy.SettledWithPermit.selector, "settled");
    }

    function permitOf(uint256 amount) private view returns (IPermit2.PermitTransferFrom memory) {
        return IPermit2.PermitTransferFrom(IPermit2.TokenPermissions(address(token), amount), 5, NOW + 60);
    }

    // validAfter == now is the last valid moment: the comparison is not strict.
    function witness() private pure returns (X402ExactPermit2Proxy.Witness memory) {
        return X402ExactPermit2Proxy.Witness(PAYEE, NOW);
    }

    function approval(uint256 value) private pure returns (LocalPermit2Proxy.EIP2612Permit memory) {
        return LocalPermit2Proxy.EIP2612Permit(value, NOW + 60, bytes32(uint256(1)), bytes32(uint256(2)), 27);
    }
}
